"""How a call of libxenctrl is made: the domain checked, the arguments fitted, the errno explained.

Every domain number is checked before any call: pausing the own domain stops the host, and
xc_monitor_disable of DOMID_INVALID panics Xen 4.13 to 4.17.6 (fixed by 6a884750f3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenintro.errors import NoSuchDomainError, NotSupportedError, UsageError
from xenintro.xen import signatures
from xenintro.xen.failures import failure

if TYPE_CHECKING:
    from xenintro.xen.library import Library
    from xenintro.xen.signatures import Release

#: The first number that is not a domain's (DOMID_FIRST_RESERVED, xen.h).
FIRST_RESERVED_DOMID = 0x7FF0


class Caller:
    """An open xc_interface and the ways to call it; `Xc` gives the calls their methods.

    Args:
        library: the loaded calls.
        own_domid: the domain that this process runs in.

    Raises:
        NoXenError: the interface cannot be opened.
    """

    def __init__(self, library: Library, own_domid: int = 0) -> None:
        self.library = library
        self.release: Release = library.release
        self.own_domid = own_domid
        self._ffi = library.ffi
        logger = library.quiet_logger
        self._handle: Any = library.call("xc_interface_open")(logger, logger, 0)
        if not self._handle:
            raise failure("xc_interface_open", library.errno)

    @property
    def address(self) -> int:
        """The handle, for C code that makes calls of its own until `close`."""
        return int(self._ffi.cast("uintptr_t", self._handle))

    def close(self) -> None:
        """Close the interface. What was switched on in Xen stays on; closing twice is fine."""
        if self._handle:
            self.library.call("xc_interface_close")(self._handle)
            self._handle = None

    def _access(self, access: str | int) -> int:
        names = signatures.access_names(self.release)
        if isinstance(access, int):
            if 0 <= access < len(names):
                return access
        elif access in names:
            return names.index(access)
        elif access in signatures.access_names(signatures.NEWEST):
            raise NotSupportedError(
                f"Xen {self._release_text} has no page permission {access!r}",
                why=f"it has: {', '.join(names)}",
            )
        raise UsageError(f"not a page permission: {access!r}", why=f"one of: {', '.join(names)}")

    @property
    def _release_text(self) -> str:
        return "{}.{}".format(*self.release)

    def _check(self, domid: int) -> None:
        if not 0 <= domid < FIRST_RESERVED_DOMID:
            raise NoSuchDomainError(
                f"no domain {domid}",
                why=f"domain numbers are 0 to {FIRST_RESERVED_DOMID - 1}",
                hint="see: xenintro list",
            )
        if domid == self.own_domid:
            raise UsageError(
                f"domain {domid} is the one this program runs in",
                why="a domain that pauses itself never runs again, and dom0 takes the host along",
                hint="name a guest: xenintro list",
            )

    def _raw(self, call: str, domid: int, *args: object) -> Any:
        self._check(domid)
        return self.library.call(call)(self._handle, domid, *args)

    def _domain(self, call: str, domid: int, *args: object) -> None:
        """A call about a domain that returns 0, or fails and sets errno."""
        if self._raw(call, domid, *args) < 0:
            raise failure(call, self.library.errno, domid)

    def _value(self, call: str, domid: int, ctype: str, *args: object) -> int:
        """A call about a domain that stores one number through its last argument."""
        out: Any = self._ffi.new(ctype)
        self._domain(call, domid, *args, out)
        return int(out[0])

    def _plain(self, call: str, *args: object) -> int:
        """A call about the host that returns a number, or fails and sets errno."""
        result = int(self.library.call(call)(self._handle, *args))
        if result < 0:
            raise failure(call, self.library.errno)
        return result

    def _trap(self, call: str, domid: int, **options: int) -> None:
        """A trap call with the options by name, in the order and choice of this release."""
        known = self.library.parameters(call)[2:]  # after the handle and the domain
        for name, value in options.items():
            if value and known and name not in known:
                since = signatures.first_release(call, name)
                needs = "no known Xen" if since is None else "Xen {}.{}".format(*since)
                raise NotSupportedError(
                    f"{name} of {call} needs {needs}", why=f"this host runs Xen {self._release_text}"
                )
        self._domain(call, domid, *(options[name] for name in known))
