"""Policies in Python: a class with ``decide``, a function ``decide``, or functions marked with ``@on``."""

from __future__ import annotations

import importlib
import inspect
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from xenintro.errors import PolicyError
from xenintro.policy.chain import FAILURES
from xenintro.policy.handlers import reasons_of
from xenintro.policy.trust import check_trusted
from xenintro.response import Response
from xenintro.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenintro.events import Event
    from xenintro.guest import Guest

    Decide = Callable[[Event, Guest], object]

_HINT = (
    "a policy is a class Policy with decide(self, event, guest), a function decide(event, guest), "
    "or functions marked with @on(...)"
)


def load_python(spec: str) -> PythonPolicy:
    """The policy in ``FILE.py``, ``FILE.py:NAME`` or ``MODULE:NAME``.

    The code runs with this process's rights, so a file that everybody can write is refused.

    Raises:
        PolicyError: no such file or name, a mistake in it, or anybody could have written it.
    """
    place, _, name = spec.partition(":")
    if place.endswith(".py") or "/" in place or Path(place).exists():
        module = _run(Path(place))
        return _policy(module, name, Path(place).stem, place)
    return _policy(_import(place), name, place, place)


class PythonPolicy:
    """Functions that decide, each a rule of its own name.

    Attributes:
        name: of the file, or of what was taken from it.
        rules: its functions.
    """

    def __init__(
        self,
        name: str,
        rules: Sequence[PythonRule],
        set_up: Callable[[Guest], object] | None = None,
        tear_down: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.rules = tuple(rules)
        self._set_up = set_up
        self._tear_down = tear_down

    def set_up(self, guest: Guest) -> None:
        """What the policy has as ``setup(guest)``."""
        if self._set_up is not None:
            self._set_up(guest)

    def tear_down(self) -> None:
        """What the policy has as ``teardown()``."""
        if self._tear_down is not None:
            self._tear_down()


class PythonRule:
    """A function that decides.

    Attributes:
        name: of the function, or of the policy if it is all of it.
        reasons: of the events that it is asked about; None: all.
        denies: code may answer anything, unless the function says otherwise (``function.denies = False``).
    """

    level: str | None = None
    tags: tuple[str, ...] = ()
    on_error: Response | None = None

    def __init__(self, name: str, decide: Decide, reasons: frozenset[str] | None = None) -> None:
        self.name = name
        self._decide = decide
        self.reasons = reasons
        self.denies = bool(getattr(decide, "denies", True))

    def judge(self, event: Event, guest: Guest) -> Verdict | None:
        """See `xenintro.policy.chain.Judge.judge`.

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


def _policy(module: ModuleType, name: str, stem: str, place: str) -> PythonPolicy:
    found: Any = getattr(module, name, None) if name else getattr(module, "Policy", module)
    if found is None:
        raise PolicyError(f"no policy in {place}: no {name}", why=_HINT)
    if isinstance(found, type):
        try:
            found = found()
        except FAILURES as error:
            raise _mistake(place, error) from error
    rules = _rules(found, name or stem)
    if not rules:
        if found is module:
            raise PolicyError(f"no policy in {place}: neither Policy nor decide", why=_HINT)
        raise PolicyError(f"{name or 'Policy'} in {place} is not a policy", why=_HINT)
    owner = module if inspect.isfunction(found) else found
    return PythonPolicy(name or stem, rules, getattr(owner, "setup", None), getattr(owner, "teardown", None))


def _rules(found: Any, name: str) -> list[PythonRule]:
    """The functions of a module, an object, or the function itself."""
    if inspect.ismodule(found):
        # What it has imported is not its own.
        members = [one for one in vars(found).values() if getattr(one, "__module__", None) == found.__name__]
    else:
        members = [getattr(found, attribute) for attribute in vars(type(found))]
    marked = [
        PythonRule(one.__name__, one, reasons)
        for one in (found, *members)
        if callable(one) and (reasons := reasons_of(one)) is not None
    ]
    decide = getattr(found, "decide", None if inspect.ismodule(found) else found)
    if callable(decide) and reasons_of(decide) is None:
        marked.append(PythonRule(name, decide))
    return marked


def _run(path: Path) -> ModuleType:
    check_trusted(path)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except FAILURES as error:
        raise _mistake(str(path), error) from error
    return module


def _import(name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except FAILURES as error:
        raise _mistake(name, error) from error
    if module.__file__ is not None:
        check_trusted(Path(module.__file__))
    return module


def _mistake(place: str, error: BaseException) -> PolicyError:
    if isinstance(error, SyntaxError):
        return PolicyError(f"a mistake in {place}, line {error.lineno}", why=error.msg)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == place]
    where = f", line {frames[-1].lineno}" if frames else ""
    return PolicyError(f"a mistake in {place}{where}", why=f"{type(error).__name__}: {error}")
