"""Every error of the project: what happened, why, what to do next, and the exit code it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class XenintroError(Exception):
    """Base of all errors that are shown to a person in three lines.

    Args:
        what: one sentence without a full stop: what could not be done.
        why: the cause, with the failing call and errno where there is one.
        hint: what to do next, usually a command.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def lines(self) -> list[str]:
        """The message as it is printed: at most three lines, without colour."""
        return [f"error: {self.what}", *(f"  {text}" for text in (self.why, self.hint) if text)]


class UsageError(XenintroError):
    """The command or its arguments make no sense."""

    exit_code = 2


class NoXenError(XenintroError):
    """This is not the control domain of a Xen host, or this process may not talk to Xen."""

    exit_code = 3


class NoSuchDomainError(XenintroError):
    """No domain with this number or name."""

    exit_code = 4


class DomainBusyError(XenintroError):
    """Another vm_event agent holds the domain, or one died holding it."""

    exit_code = 5


class NotSupportedError(XenintroError):
    """This host, release or domain cannot do what was asked."""

    exit_code = 6


class DamagedInputError(XenintroError):
    """Bytes that no Xen would have written: a ring page, a slot, a capture."""

    exit_code = 7


class PolicyError(XenintroError):
    """A policy cannot be loaded, or asks for what Xen would ignore."""

    exit_code = 8


class IllegalResponseError(PolicyError):
    """A response that Xen would ignore for this reason, version or state."""


class AnswersDifferError(PolicyError):
    """A replay gives other answers than were recorded."""


class RulesError(PolicyError):
    """Mistakes in a file of rules; it reads as the first of them.

    Attributes:
        mistakes: all of them, in the order of the file.
    """

    def __init__(self, mistakes: Sequence[PolicyError]) -> None:
        first = mistakes[0]
        super().__init__(first.what, why=first.why, hint=first.hint)
        self.mistakes = tuple(mistakes)

    def lines(self) -> list[str]:
        """The first mistake, and where to see the others."""
        lines = self.mistakes[0].lines()
        if more := len(self.mistakes) - 1:
            path = self.what.partition(":")[0]
            lines.append(f"  and {more} more: xenintro policy check {path}")
        return lines


class RuleError(PolicyError):
    """A rule that could not decide about an event, or whose answer has no effect.

    Attributes:
        rule: its name.
    """

    def __init__(self, rule: str, error: BaseException) -> None:
        super().__init__(f"{rule}: {described(error)}")
        self.rule = rule


class GuestReadError(XenintroError):
    """Guest memory that cannot be read."""


class ExpressionError(PolicyError):
    """A mistake in an expression or a template.

    Attributes:
        text: all of it.
        offset: where the mistake begins in it, from 0.
        length: characters that it takes, at least 1.
        nearest: the right word for the wrong one, None where there is none.
    """

    def __init__(
        self,
        what: str,
        *,
        text: str,
        offset: int,
        length: int,
        why: str = "",
        hint: str = "",
        nearest: str | None = None,
    ) -> None:
        super().__init__(what, why=why, hint=hint or (f"did you mean {nearest}?" if nearest else ""))
        self.text = text
        self.offset = offset
        self.length = max(1, length)
        self.nearest = nearest

    def marked(self) -> list[str]:
        """The line with the mistake, cut to what a terminal holds, and a line that marks it."""
        begin = self.text.rfind("\n", 0, self.offset) + 1
        line = self.text[begin:].partition("\n")[0]
        start = max(0, self.offset - begin - 40)
        shown = "".join(one if one.isprintable() else " " for one in line[start : start + 70])
        shown = f"{'...' if start else ''}{shown}{'...' if start + 70 < len(line) else ''}"
        at = self.offset - begin - start + (3 if start else 0)
        return [shown, " " * at + "^" + "~" * (min(self.length, max(1, len(shown) - at)) - 1)]

    def lines(self) -> list[str]:
        """As of every error, with the marked text in it."""
        first, *rest = super().lines()
        return [first, *(f"  {line}" for line in self.marked()), *rest]


class DomainGoneError(XenintroError):
    """The domain was destroyed, crashed or rebooted while it was watched."""

    exit_code = 9


class ReleaseError(XenintroError):
    """The domain could not be released cleanly."""

    exit_code = 10


class WorkerDiedError(XenintroError):
    """The process that watched ended badly; the domain was given back."""


class CaptureError(XenintroError):
    """A capture cannot be written any more; what was written before can be read."""


class XenCallError(XenintroError):
    """A libxc call failed in a way that has no better class.

    Attributes:
        call: the C function, for instance ``xc_monitor_cpuid``.
        errno: what it set.
    """

    def __init__(self, what: str, *, call: str, errno: int, why: str = "", hint: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.call = call
        self.errno = errno


class AlreadyAnsweredError(XenintroError):
    """A second answer to the same request: always a bug in the caller."""


class RegisterNotProvidedError(XenintroError):
    """The hypervisor does not fill this register for this reason and release."""


def described(error: BaseException) -> str:
    """Any error in one line: its cause, or the place that raised it if it is none of ours."""
    if isinstance(error, XenintroError):
        return ": ".join(part for part in (error.what, error.why) if part)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]}, line {trace.tb_lineno})"
    return f"{type(error).__name__}: {error}{where}"
