"""Policies in Python: a file with a class ``Policy`` or a function ``decide``."""

from __future__ import annotations

import stat
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from xenintro.errors import PolicyError
from xenintro.response import Response
from xenintro.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenintro.events import Event
    from xenintro.guest import Guest

_HINT = "a policy is a class Policy with decide(self, event, guest), or a function decide(event, guest)"


class Policy(Protocol):
    """Decides about events of one guest."""

    def judge(self, event: Event, guest: Guest) -> Verdict | None:
        """The answer to an event; None has no opinion, and if nobody has one the event happens."""


def load(spec: str) -> Policy:
    """The policy in a file: ``FILE.py``, or ``FILE.py:NAME`` for a class or function of another name.

    The file runs with this process's rights, so one that everybody can write is refused.

    Raises:
        PolicyError: no such file or name, a mistake in it, or anybody could have written it.
    """
    path, _, name = spec.partition(":")
    module = _run(Path(path))
    found: Any = getattr(module, name, None) if name else _default(module)
    if found is None:
        wanted = f"no {name}" if name else "neither Policy nor decide"
        raise PolicyError(f"no policy in {path}: {wanted}", why=_HINT)
    if isinstance(found, type):
        try:
            found = found()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in a policy ends no service
            raise _mistake(Path(path), error) from error
    decide = getattr(found, "decide", found)
    if callable(decide):
        return PythonPolicy(name or Path(path).stem, decide)
    raise PolicyError(f"{name or 'Policy'} in {path} is not a policy", why=_HINT)


def chain(policies: Sequence[Policy], guest: Guest) -> Callable[[Event], Verdict | None] | None:
    """What a session asks: the first policy that answers wins. None where there is no policy."""
    if not policies:
        return None
    judging = [policy.judge for policy in policies]

    def decide(event: Event) -> Verdict | None:
        for judge in judging:
            verdict = judge(event, guest)
            if verdict is not None:
                return verdict
        return None

    return decide


class PythonPolicy:
    """A function that decides; it is one rule, called as what it was loaded by.

    Attributes:
        name: of the file, or of what was taken from it.
    """

    level: str | None = None
    tags: tuple[str, ...] = ()

    def __init__(self, name: str, decide: Callable[[Event, Guest], object]) -> None:
        self.name = name
        self._decide = decide

    def judge(self, event: Event, guest: Guest) -> Verdict | None:
        """See `Policy.judge`.

        Raises:
            PolicyError: the answer is no response.
        """
        response = self._decide(event, guest)
        if response is None:
            return None
        if not isinstance(response, Response):
            raise PolicyError(f"decide gave {response!r}", why="that is no xenintro.response.Response")
        return Verdict(response, self)

    def message(self, event: Event) -> str | None:
        """Nothing but its name."""
        return None


def _default(module: ModuleType) -> object:
    return getattr(module, "Policy", None) or getattr(module, "decide", None)


def _run(path: Path) -> ModuleType:
    _check_trusted(path)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a policy ends no service
        raise _mistake(path, error) from error
    return module


def _check_trusted(path: Path) -> None:
    try:
        modes = [(one, one.stat().st_mode) for one in (path, path.absolute().parent)]
    except OSError as error:
        raise PolicyError(f"cannot read the policy {path}", why=error.strerror or str(error)) from error
    for one, mode in modes:
        # In a directory like /tmp (sticky) others cannot replace a file that is not theirs.
        if mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            raise PolicyError(
                f"the policy {path} is not trusted",
                why=f"everybody can write to {one}, and a policy runs with the rights of this process",
                hint=f"chmod o-w {one}",
            )


def _mistake(path: Path, error: BaseException) -> PolicyError:
    if isinstance(error, SyntaxError):
        return PolicyError(f"a mistake in {path}, line {error.lineno}", why=error.msg)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)]
    where = f", line {frames[-1].lineno}" if frames else ""
    return PolicyError(f"a mistake in {path}{where}", why=f"{type(error).__name__}: {error}")
