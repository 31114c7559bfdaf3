"""One watched domain: attach, traps on, requests in, answers out, and back to how it was."""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from xenintro import legality
from xenintro.errors import DomainGoneError, XenintroError
from xenintro.events import Singlestep
from xenintro.legality import Machine
from xenintro.source import Request
from xenintro.xen.arming import arm, disarm, has_singlestep
from xenintro.xen.attachment import Attachment
from xenintro.xen.injection import reinject
from xenintro.xen.preflight import check_domain, check_traps, helper_traps, needs_steps, ring_interface
from xenintro.xen.stepping import Stepping
from xenintro.xen.teardown import Teardown, release_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from xenintro.events import Event
    from xenintro.response import Response
    from xenintro.traps import Trap
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

#: Seconds between looks at whether the domain still lives: nothing on our channel tells when it dies.
_CHECK_EVERY = 0.5


class Monitor:
    """Watches one domain; an `xenintro.source.EventSource`. Use it as a context manager.

    Leaving the context gives the domain back: see `xenintro.xen.teardown`. What could not be given back comes
    out as ReleaseError, and any error of a call as DomainGoneError if the domain has died.

    Args:
        xc: an open libxc.
        domid: the domain.
        traps: what to ask for.

    Attributes:
        info: the domain as it was when attached.
        interface: the layout of its ring.
        failures: what went wrong in giving the domain back.
        unanswered: requests without an answer then; zero unless a step failed.

    Raises:
        NoSuchDomainError, DomainBusyError, NotSupportedError, UsageError: nothing was changed then.
    """

    def __init__(self, xc: Xc, domid: int, traps: tuple[Trap, ...]) -> None:
        self._xc = xc
        self._domid = domid
        self.info = check_domain(xc, domid)
        self.interface = ring_interface(xc)
        capabilities = xc.capabilities(domid)
        check_traps(xc, domid, traps, capabilities)
        self._traps = (*helper_traps(traps, capabilities), *traps)
        self._can_step = has_singlestep(capabilities)
        self._machine = Machine(
            singlestep=self._can_step,
            singlestep_armed=any(trap.reason == "singlestep" for trap in self._traps),
        )
        self._steps_from_start = needs_steps(traps)
        self._stepping = Stepping(traps, self._set_access, can_step=self._can_step)
        self._disarm: list[Callable[[], None]] = []
        self._next_check = 0.0
        self._attachment: Attachment | None = None
        self.failures: list[Exception] = []
        self.unanswered = 0

    def __enter__(self) -> Self:
        self._attachment = Attachment(self._xc, self.info, self.interface)
        try:
            self._start(self._attachment)
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    # EventSource

    def wait(self, timeout: float) -> None:
        """See `xenintro.source.EventSource.wait`."""
        self._ring().wait(timeout)
        now = monotonic()
        if now >= self._next_check:
            self._next_check = now + _CHECK_EVERY
            self._ring().check()

    def requests(self) -> Iterator[Request]:
        """See `xenintro.source.EventSource.requests`."""
        take = self._ring().ring.take
        while (raw := take()) is not None:
            yield Request(raw, self)

    def check(self, event: Event, response: Response) -> None:
        """See `xenintro.source.EventSource.check`."""
        legality.check(event, response, self._machine)

    def prepare(self, event: Event, response: Response | None) -> Response:
        """See `xenintro.source.EventSource.prepare`."""
        if response is None:
            response = self._stepping.allow(event)
        elif isinstance(event, Singlestep):
            self._stepping.close_pages(event.vcpu_id)
        if response.reinject:
            reinject(self._xc, self._domid, event)
        return response

    def put(self, response: bytes) -> None:
        """See `xenintro.source.EventSource.put`."""
        self._ring().put(response)

    def flush(self) -> None:
        """See `xenintro.source.EventSource.flush`."""
        self._ring().flush()

    # Details

    def _start(self, attachment: Attachment) -> None:
        attachment.drain()
        for trap in self._traps:
            # Noted before: a call that fails midway through a range of pages has changed some of them.
            self._disarm.insert(0, partial(disarm, self._xc, self._domid, trap))
            arm(self._xc, self._domid, trap)
            _log.info("armed %s", trap.text)
        if self._steps_from_start:
            for vcpu_id in range(self.info.nr_vcpus):
                self._xc.debug_control(self._domid, vcpu_id, single_step=True)
        attachment.unpause()

    def _leave(self, error: BaseException | None) -> None:
        """Give the domain back; raises if that failed, or if the domain's death explains the error."""
        attachment, self._attachment = self._attachment, None
        if attachment is None:
            return
        gone = _death(attachment) if isinstance(error, XenintroError) else None
        teardown = Teardown(self._xc, attachment, self._disarm, can_step=self._can_step)
        self.failures = teardown.run()
        self.unanswered = attachment.unanswered
        _log.info("released, %d requests unanswered", self.unanswered)
        if self.failures:
            raise release_error(self._called(), self.failures) from error
        if gone is not None and not isinstance(error, DomainGoneError):
            raise gone from error

    def _called(self) -> str:
        return f"{self.info.name or 'the domain'} (domid {self._domid})"

    def _ring(self) -> Attachment:
        assert self._attachment is not None, "not attached"
        return self._attachment

    def _set_access(self, gfn: int, access: str) -> None:
        self._xc.set_mem_access(self._domid, access, gfn, 1)


def _death(attachment: Attachment) -> DomainGoneError | None:
    try:
        attachment.check()
    except DomainGoneError as gone:
        return gone
    except XenintroError:
        return None  # Xen does not even say that; the first error tells more
    return None
