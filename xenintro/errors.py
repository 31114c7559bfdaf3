"""Every error of the project: what happened, why, what to do next, and the exit code it ends with."""

from __future__ import annotations


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


class DomainGoneError(XenintroError):
    """The domain was destroyed, crashed or rebooted while it was watched."""

    exit_code = 9


class ReleaseError(XenintroError):
    """The domain could not be released cleanly."""

    exit_code = 10


class WorkerDiedError(XenintroError):
    """The process that watched ended badly; the domain was given back."""


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
