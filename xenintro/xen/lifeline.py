"""Whether a domain still lives, and how it died: asked of Xen, and told by xenstored if it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import DomainGoneError, XenintroError
from xenintro.xen.domains import still_there
from xenintro.xen.xenstore import DOMAIN_GONE, XenStore

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc

_SHUTDOWN_REASONS = ("powered off", "rebooted", "was suspended", "crashed", "was killed by its watchdog")


class Lifeline:
    """The life of one domain.

    Args:
        xc: an open libxc.
        info: the domain as it was.

    Attributes:
        gone: Xen was seen not to list the domain any more: it took everything back itself.
    """

    def __init__(self, xc: Xc, info: DomainInfo) -> None:
        self._xc = xc
        self._info = info
        self.gone = False
        self._store = XenStore()
        self._store.watch(DOMAIN_GONE)

    def fileno(self) -> int | None:
        """What to poll for input for `rang`; None if xenstored does not tell, or not any more."""
        return self._store.fileno()

    def rang(self) -> bool:
        """Whether xenstored has told that some domain died; never waits."""
        return bool(self._store.events())

    def check(self) -> DomainInfo:
        """The domain as it is now.

        Raises:
            DomainGoneError: destroyed, replaced by another, crashed or shut down.
        """
        now = still_there(self._xc, self._info)
        self.gone = now is None
        if (died := death_of(self._info, now)) is not None:
            raise died
        assert now is not None
        return now

    def death(self) -> DomainGoneError | None:
        """How the domain died, if it did: what other errors come from then."""
        try:
            self.check()
        except DomainGoneError as gone:
            return gone
        except XenintroError:
            return None  # Xen does not even say that; the first error tells more
        return None

    def close(self) -> None:
        """Leave xenstored."""
        self._store.close()


def death_of(info: DomainInfo, now: DomainInfo | None) -> DomainGoneError | None:
    """How a domain died, None if it lives.

    Args:
        info: as it was.
        now: what `xenintro.xen.domains.still_there` says.
    """
    if now is not None and not now.shutdown:
        return None
    what, why = "was destroyed", "Xen does not list it any more"
    if now is not None:
        reason = now.shutdown_reason or 0
        what = _SHUTDOWN_REASONS[reason] if reason < len(_SHUTDOWN_REASONS) else "shut down"
        why = f"its shutdown reason is {reason}"
    return DomainGoneError(
        f"{info.name or f'domain {info.domid}'} {what}",
        why=why,
        hint=f"when it is back: xenintro watch --name {info.name or info.uuid}",
    )
