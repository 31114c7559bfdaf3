"""Where settings come from: defaults, a file, its drop-ins, the environment, flags; the last one wins."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import inspect

from xenintro.errors import UsageError
from xenintro.service.config import Config, deadline_of, rotation_of, traps_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xenintro.traps import Trap

_SCHEMA = inspect.type_info(Config)
_PLACE = re.compile(r"(?P<what>.*) - at `\$\.?(?P<path>.*)`", re.DOTALL)


class Settings(NamedTuple):
    """A configuration that was read and checked.

    ``sources`` says of each key that was set where that was.
    """

    config: Config
    traps: tuple[Trap, ...]
    deadline: float
    sources: Mapping[str, str]

    @property
    def name(self) -> str:
        """The domain's name or UUID."""
        return self.config.domain.name or ""


class Layers:
    """The places that settings are read from, each time anew.

    Args:
        path: the file; ``PATH.d/*.toml`` change it. None: there is no file.
        overrides: what the environment and the command line say: the name of the place, and its settings.
    """

    def __init__(self, path: Path | None, overrides: Sequence[tuple[str, dict[str, Any]]] = ()) -> None:
        self.path = path
        self._overrides = tuple(overrides)

    def load(self) -> Settings:
        """Read and check everything.

        Raises:
            UsageError: a file that cannot be read, an unknown key, a wrong value; it names the key.
            NotSupportedError: a trap that no generic answer lets pass.
        """
        merged: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for source, settings in self._layers():
            _refuse_unknown(settings, source)
            _merge(merged, settings, source, sources)
        try:
            config = msgspec.convert(merged, Config)
        except msgspec.ValidationError as error:
            raise _wrong(error, sources) from error
        name = config.domain.name or ""
        if not name or "/" in name or name in (".", ".."):
            raise UsageError(
                f"domain.name: {name!r} is no name" if name else "domain.name is missing",
                why="a service watches one domain, by its name or UUID",
                hint="in the file, or: xenintro serve --name NAME",
            )
        deadline = deadline_of(config.safety)
        rotation_of(config.capture)
        return Settings(config, traps_of(config.traps), deadline, sources)

    def _layers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self.path is not None:
            yield str(self.path), _read(self.path)
            for path in sorted(Path(f"{self.path}.d").glob("*.toml")):
                yield str(path), _read(path)
        yield from self._overrides


def listing(settings: Settings) -> list[str]:
    """Every key with its value and where it comes from, as TOML."""
    lines = []
    for section in settings.config.__struct_fields__:
        table = msgspec.to_builtins(getattr(settings.config, section))
        for key, value in table.items():
            path = f"{section}.{key}"
            origins = {settings.sources[at] for at in settings.sources if f"{at}.".startswith(f"{path}.")}
            if value is not None or origins:
                lines.append((f"{path} = {_toml(value)}", ", ".join(sorted(origins)) or "default"))
    width = max(len(setting) for setting, _ in lines)
    return [f"{setting:<{width}}  # {origin}" for setting, origin in lines]


def setting(text: str) -> dict[str, Any]:
    """Read ``policy.mode=enforce``: a dotted key, and a value as TOML or just text.

    Raises:
        UsageError: no key.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not re.fullmatch(r"\w+(\.\w+)+", key):
        raise UsageError(f"not a setting: {text!r}", hint="for instance policy.mode=enforce")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    except ValueError as error:  # tomllib.TOMLDecodeError, UnicodeDecodeError
        raise UsageError(f"{path} is not TOML", why=str(error)) from error


def _merge(
    into: dict[str, Any], layer: dict[str, Any], source: str, sources: dict[str, str], path: str = ""
) -> None:
    for key, value in layer.items():
        at = f"{path}{key}"
        if isinstance(value, dict):
            table = into.get(key)
            if not isinstance(table, dict):
                table = into[key] = {}
                sources.pop(at, None)
            _merge(table, value, source, sources, f"{at}.")
        else:
            into[key] = value
            for below in [one for one in sources if one.startswith(f"{at}.")]:
                del sources[below]
            sources[at] = source


def _refuse_unknown(settings: dict[str, Any], source: str) -> None:
    for path, key, known in _unknown(settings, _SCHEMA, ""):
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        raise UsageError(
            f"{path}{key}: unknown" + (f", did you mean {close[0]}?" if close else ""),
            why=f"in {source}; known here are {', '.join(known)}",
        )


def _unknown(value: Any, kind: inspect.Type, path: str) -> Iterator[tuple[str, str, list[str]]]:
    """Keys that the schema does not have: where, which, and what there is."""
    for one in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(value, dict) and isinstance(one, inspect.StructType):
            known = {field.encode_name: field.type for field in one.fields}
            for key, inner in value.items():
                if key in known:
                    yield from _unknown(inner, known[key], f"{path}{key}.")
                else:
                    yield path, key, list(known)
        elif isinstance(value, list) and isinstance(one, inspect.ListType):
            for number, inner in enumerate(value):
                yield from _unknown(inner, one.item_type, f"{path[:-1]}[{number}].")


def _wrong(error: msgspec.ValidationError, sources: Mapping[str, str]) -> UsageError:
    match = _PLACE.fullmatch(str(error))
    what, path = (match["what"], match["path"]) if match else (str(error), "")
    below = path.partition("[")[0]
    source = next((sources[at] for at in sources if f"{at}.".startswith(f"{below}.")), "")
    what = what[:1].lower() + what[1:]
    for word, ours in (("`", ""), ("object", "table"), ("array", "list"), ("enum ", "")):
        what = what.replace(word, ours)
    text = f"{path}: {what}" if path else what
    return UsageError(text, why=f"in {source}" if source else "")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
