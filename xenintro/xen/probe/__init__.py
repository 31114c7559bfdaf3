"""What ``doctor`` finds: every precondition of watching, with what to do where it does not hold.

What ``watch`` refuses is refused in one place, `xenintro.xen.preflight` and `xenintro.xen.failures`: the
same error is a finding here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import NoXenError, XenintroError
from xenintro.xen.locate import locate
from xenintro.xen.probe import domain, host, process
from xenintro.xen.probe.finding import Finding, failed
from xenintro.xen.probe.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xenintro.traps import Trap
    from xenintro.xen.xc import Xc

__all__ = ["Finding", "examine", "versions"]


def examine(
    selection: str, choose: Callable[[Xc], int] | None = None, traps: tuple[Trap, ...] = ()
) -> Iterator[Finding]:
    """Look at the host, at one domain, and at this process. Nothing is changed, nothing raised.

    Args:
        selection: which Xen, see `xenintro.xen.locate.locate`.
        choose: finds the domain; None for none.
        traps: what is to be trapped in it.
    """
    yield from _xen(selection, choose, traps)
    yield from process.findings()


def _xen(selection: str, choose: Callable[[Xc], int] | None, traps: tuple[Trap, ...]) -> Iterator[Finding]:
    real = selection == "auto"
    try:
        locate(selection)
    except NoXenError as error:
        yield failed("control-domain", "host", "control domain", error)
        yield from host.devices()
        return
    except XenintroError:
        pass  # said when the library is opened
    if real:
        yield Finding("control-domain", "host", "ok", "control domain", "this is dom0")
        yield from host.devices()
    try:
        # Only now: the package works without its native parts, and says what is missing.
        from xenintro.xen.xc import connect

        xc = connect(selection)
    except XenintroError as error:
        yield failed("libxenctrl", "host", "libxenctrl", error)
        return
    with xc:
        yield from host.findings(xc)
        if choose is not None:
            yield from domain.findings(xc, choose, traps)
