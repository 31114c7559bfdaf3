"""The domctl that no libxc wraps: trapped register writes wait for their answer, which can deny them.

From Xen 4.14 on (985ba41f66) such a write happens at once and a denial is ignored, unless
XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS was issued for the domain. Nothing takes it back but the end of the
monitor ring (arch_monitor_cleanup_domain, xen/arch/x86/monitor.c), and a write that waits then is lost.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from xenintro.errors import NotSupportedError, XenCallError, XenintroError
from xenintro.xen import signatures
from xenintro.xen.failures import failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.xc import Xc

#: The first release whose writes wait only when asked to.
SINCE = (4, 14)

#: public/xen.h, public/domctl.h; the same in 4.14 to 4.22.
_HYPERVISOR_DOMCTL = 36
_MONITOR_OP = 77
_GET_CAPABILITIES, _CONTROL_REGISTERS = 2, 4

#: struct xen_domctl: cmd, interface_version, domain; 128 bytes that begin with monitor_op's op and event.
_DOMCTL = struct.Struct("<IIH6xII120x")

#: What those do who cannot deny writes.
_INSTEAD = "only observe (--mode observe), or use a policy that denies no write"


def check_deny(xc: Xc, domid: int) -> None:
    """Refuse where register writes cannot be denied. Nothing is changed.

    Raises:
        NotSupportedError: says what is missing.
    """
    if xc.release < SINCE:
        return
    try:
        _version(xc, domid)
    except XenintroError as error:
        raise NotSupportedError(
            "register writes cannot be denied here",
            why=": ".join(part for part in (error.what, error.why) if part),
            hint=_INSTEAD,
        ) from error


def defer_writes(xc: Xc, domid: int) -> None:
    """Let trapped writes of control registers and MSRs wait for their answer. The ring must be there.

    Raises:
        NotSupportedError: this Xen cannot, or does not let this process do it.
        XenintroError: it failed.
    """
    _monitor_op(xc, domid, _version(xc, domid), _CONTROL_REGISTERS)


def _version(xc: Xc, domid: int) -> int:
    """XEN_DOMCTL_INTERFACE_VERSION of the running Xen, proved by a question whose answer is known.

    A domctl of another version has no effect but EACCES. What may be asked is what may be done: the XSM
    looks at the monitor's operations alike.

    Raises:
        NotSupportedError: Xen takes none that is known, or answers something else.
        XenintroError: there is no way to ask.
    """
    expected = xc.capabilities(domid)
    for version in _candidates(xc):
        try:
            answer = _monitor_op(xc, domid, version, _GET_CAPABILITIES)
        except XenCallError as error:
            if error.errno != errno.EACCES:
                raise
            continue
        if answer != expected:
            raise NotSupportedError(
                "Xen's answer to a domctl makes no sense", why=f"{answer:#x} capabilities"
            )
        return version
    known = ", ".join(f"{version:#x}" for version in _candidates(xc))
    raise NotSupportedError(
        "Xen takes no domctl of a version that is known", why=f"known are {known}", hint=_INSTEAD
    )


def _candidates(xc: Xc) -> Iterator[int]:
    """This release's version, then those of others: trees with backports exist."""
    first = signatures.DOMCTL_VERSION[signatures.clamp(xc.release)]
    yield first
    yield from sorted({*signatures.DOMCTL_VERSION.values()} - {first}, reverse=True)


def _monitor_op(xc: Xc, domid: int, version: int, operation: int) -> int:
    """XEN_DOMCTL_monitor_op; gives what Xen leaves in ``event``."""
    library = xc.library
    ffi = library.ffi
    call = library.call("xencall1")
    handle = library.call("xencall_open")(library.quiet_logger, 0)
    if not handle:
        raise failure("xencall_open", library.errno)
    try:
        address = library.call("xencall_alloc_buffer")(handle, _DOMCTL.size)
        if not address:
            raise failure("xencall_alloc_buffer", library.errno)
        try:
            buffer = ffi.buffer(address, _DOMCTL.size)
            buffer[:] = _DOMCTL.pack(_MONITOR_OP, version, domid, operation, 0)
            if call(handle, _HYPERVISOR_DOMCTL, int(ffi.cast("uintptr_t", address))) < 0:
                raise failure("xencall1", library.errno, domid)
            event: int = _DOMCTL.unpack_from(buffer)[-1]
            return event
        finally:
            library.call("xencall_free_buffer")(handle, address)
    finally:
        library.call("xencall_close")(handle)
