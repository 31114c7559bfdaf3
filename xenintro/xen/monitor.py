"""One watched domain: attach, traps on, requests in, answers out, and back to how it was."""

from __future__ import annotations

import errno
import logging
import select
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Self

from xenintro import legality
from xenintro.abi import CAPABILITIES, Interface, interface_of_version
from xenintro.abi.constants import NO_ERROR_CODE, TRAP_DEBUG, TRAP_INT3
from xenintro.errors import NotSupportedError, ReleaseError, XenCallError, XenintroError
from xenintro.events import DebugException, SoftwareBreakpoint
from xenintro.legality import Machine
from xenintro.source import Request
from xenintro.traps import Trap
from xenintro.xen import arming
from xenintro.xen.attachment import Attachment, tried
from xenintro.xen.domains import DomainInfo, domain_info
from xenintro.xen.stepping import Stepping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from xenintro.events import Event
    from xenintro.response import Response
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

#: Seconds between looks at whether the domain still lives: nothing on our channel tells when it dies.
_CHECK_EVERY = 0.5
#: How long vCPUs get to apply what they were answered with before the ring goes away.
_SETTLE_SECONDS = 0.5
_RUN_AT_MOST = 0.02
_RUN_STEP = 0.001
#: What INT3 is for xc_hvm_inject_trap where the event does not say (before Xen 4.8).
_SW_EXCEPTION = 6
_INT3_LENGTH = 1


class Monitor:
    """Watches one domain; an `xenintro.source.EventSource`. Use it as a context manager.

    Args:
        xc: an open libxc.
        domid: the domain.
        traps: what to ask for.

    Attributes:
        info: the domain as it was when attached.
        interface: the layout of its ring.
        failures: what went wrong in `detach`.
        unanswered: requests without an answer after `detach`; zero unless a step failed.

    Raises:
        NoSuchDomainError, DomainBusyError, NotSupportedError: nothing was changed then.
    """

    def __init__(self, xc: Xc, domid: int, traps: tuple[Trap, ...]) -> None:
        self._xc = xc
        self._domid = domid
        self._traps = traps
        self.info = check_domain(xc, domid)
        self.interface = ring_interface(xc)
        capabilities = xc.capabilities(domid)
        arming.check_capabilities(capabilities, traps)
        can_step = arming.has_singlestep(capabilities)
        self._machine = Machine(singlestep=can_step)
        self._helpers = helper_traps(traps, capabilities)
        self._steps_from_start = needs_steps(traps)
        self._stepping = Stepping(traps, self._set_access, can_step=can_step)
        self._armed: list[Trap] = []
        self.failures: list[Exception] = []
        self.unanswered = 0
        self._next_check = 0.0
        self._attachment: Attachment | None = None

    def __enter__(self) -> Self:
        self._attachment = Attachment(self._xc, self.info, self.interface)
        try:
            self._attachment.drain()
            for trap in (*self._helpers, *self._traps):
                arming.switch(self._xc, self._domid, trap, on=True)
                self._armed.append(trap)
            self._start_stepping()
            self._poll = select.poll()
            self._poll.register(self._attachment.channel.fileno(), select.POLLIN)
            self._attachment.unpause()
        except BaseException:
            self.detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if failures := self.detach():
            name = self.info.name or "the domain"
            raise ReleaseError(
                f"could not release {name} (domid {self._domid}) cleanly",
                why="; ".join(str(failure) for failure in failures),
                hint=f"look at it: xl list; xenintro doctor --domid {self._domid}",
            ) from error

    # EventSource

    def wait(self, timeout: float) -> None:
        """See `xenintro.source.EventSource.wait`."""
        self._ring().wait(self._poll, timeout)
        now = monotonic()
        if now >= self._next_check:
            self._next_check = now + _CHECK_EVERY
            self._ring().check()

    def requests(self) -> Iterator[Request]:
        """See `xenintro.source.EventSource.requests`."""
        take = self._ring().ring.take
        while (raw := take()) is not None:
            yield Request(raw, self)

    def prepare(self, event: Event, response: Response | None) -> Response:
        """See `xenintro.source.EventSource.prepare`."""
        if response is None:
            response = self._stepping.allow(event)
        else:
            legality.check(event, response, self._machine)
        return self._reinject(event, response) if response.reinject else response

    def put(self, response: bytes) -> None:
        """See `xenintro.source.EventSource.put`."""
        self._ring().put(response)

    def flush(self) -> None:
        """See `xenintro.source.EventSource.flush`."""
        if self._attachment is not None:
            self._attachment.flush()

    # Ends

    def detach(self) -> list[Exception]:
        """Give the domain back: traps off, everything answered, ring gone, unpaused as often as paused.

        Every step is tried even if the one before failed; returns what failed. Again: nothing happens.
        """
        attachment, self._attachment = self._attachment, None
        if attachment is None:
            return []
        failures = self.failures
        try:
            settle = attachment.drain if attachment.check().paused else partial(self._settle, attachment)
        except XenintroError as error:
            _log.info("while releasing: %s", error)
            settle = attachment.drain
        if attachment.enabled:  # else the domain was destroyed, and Xen took everything back itself
            for trap in reversed(self._armed):
                tried(partial(arming.switch, self._xc, self._domid, trap, on=False), failures)
            for step in (attachment.pause, self._stop_stepping, settle):
                tried(step, failures)
        failures += attachment.release()
        self.unanswered = attachment.unanswered
        return failures

    def _settle(self, attachment: Attachment) -> None:
        """Answer until nothing is left, letting the vCPUs apply answers that only act when they run.

        xc_monitor_disable discards registers and emulation that a vCPU has not picked up, and on Xen 4.6 to
        4.13 the register write itself (985ba41f66). vCPUs that waited for a slot come to the ring only now.
        """
        deadline = monotonic() + _SETTLE_SECONDS
        quiet_rounds = 0
        while quiet_rounds < 2 and monotonic() < deadline:
            answered = attachment.drain()
            quiet = self._let_run(attachment) and not answered
            quiet_rounds = quiet_rounds + 1 if quiet else 0
        attachment.drain()

    def _let_run(self, attachment: Attachment) -> bool:
        """Let the domain run for a moment; whether every vCPU ran or has nothing to do."""
        before = self._vcpu_times()
        limit = monotonic() + _RUN_AT_MOST
        attachment.unpause()
        try:
            while True:
                sleep(_RUN_STEP)
                after = self._vcpu_times().items()
                ran = all(blocked or time > before[vcpu_id][0] for vcpu_id, (time, blocked) in after)
                if ran or monotonic() >= limit:
                    return ran
        finally:
            attachment.pause()

    def _vcpu_times(self) -> dict[int, tuple[int, bool]]:
        times = {}
        for vcpu_id in range(self.info.nr_vcpus):
            info = self._xc.vcpu_info(self._domid, vcpu_id)
            times[vcpu_id] = info.cpu_time_ns, info.blocked or not info.online
        return times

    # Details

    def _ring(self) -> Attachment:
        assert self._attachment is not None, "not attached"
        return self._attachment

    def _set_access(self, gfn: int, access: str) -> None:
        self._xc.set_mem_access(self._domid, access, gfn, 1)

    def _start_stepping(self) -> None:
        if self._steps_from_start:
            self._set_stepping(on=True)

    def _stop_stepping(self) -> None:
        # Nothing else clears it, xc_monitor_disable included, and a stepping vCPU gets no interrupts.
        if self._steps_from_start or self._stepping.used:
            self._set_stepping(on=False)

    def _set_stepping(self, *, on: bool) -> None:
        for vcpu_id in range(self.info.nr_vcpus):
            self._xc.debug_control(self._domid, vcpu_id, single_step=on)

    def _reinject(self, event: Event, response: Response) -> Response:
        assert isinstance(event, SoftwareBreakpoint | DebugException)
        vector = TRAP_INT3 if isinstance(event, SoftwareBreakpoint) else TRAP_DEBUG
        trap = {
            "vector": vector,
            "type": _SW_EXCEPTION if event.type is None else event.type,
            "error_code": NO_ERROR_CODE,
            "insn_len": _INT3_LENGTH if event.insn_length is None else event.insn_length,
            "extra": (event.pending_dbg or 0) if vector == TRAP_DEBUG else 0,
        }
        try:
            self._xc.inject_trap(self._domid, event.vcpu_id, **trap)
        except XenCallError as error:
            if error.errno != errno.EBUSY:
                raise
            # Another injection is pending: answered plainly, the instruction traps again after it.
            _log.warning("vcpu %d: %s is not injected now: another is pending", event.vcpu_id, event.reason)
        return response


def check_domain(xc: Xc, domid: int) -> DomainInfo:
    """The domain, if it can be watched.

    Raises:
        NoSuchDomainError: there is none.
        NotSupportedError: a PV domain, or more vCPUs than this release can wake again.
    """
    info = domain_info(xc, domid)
    name = f"domain {domid}" + (f" ({info.name})" if info.name else "")
    if not info.hvm:
        raise NotSupportedError(
            f"{name} is a PV domain",
            why="Xen reports vm_events of HVM and PVH domains only",
            hint="see which can be watched: xenintro list",
        )
    if info.nr_vcpus > 8 and xc.release < (4, 9):
        raise NotSupportedError(
            f"{name} has {info.nr_vcpus} vCPUs",
            why="Xen 4.6 to 4.8 never wake a vCPU that waited for the ring when there are more than 8 "
            "(7f8445d967, fixed in 4.9)",
            hint="give the domain at most 8 vCPUs, or use Xen 4.9 or newer",
        )
    return info


def ring_interface(xc: Xc) -> Interface:
    """The layout that the running hypervisor speaks.

    Raises:
        NotSupportedError: a version newer than this xenintro knows.
    """
    version = xc.vm_event_version()
    layout = interface_of_version(version, "x86_64", f"{xc.release[0]}.{xc.release[1]}")
    if layout is None:
        raise NotSupportedError(
            f"Xen speaks vm_event interface version {version}",
            why="known are 1 to 7, and Xen drops answers of another version",
            hint="update xenintro",
        )
    return layout


def needs_steps(traps: tuple[Trap, ...]) -> bool:
    """Whether every vCPU single-steps from the start.

    Interrupts are asked for in the answer to another event: where no trap makes one, a first step does.
    """
    others = [trap for trap in traps if trap.reason != "interrupt"]
    first_step = len(others) < len(traps) and not any(trap.sync for trap in others)
    return first_step or any(trap.reason == "singlestep" for trap in traps)


def helper_traps(traps: tuple[Trap, ...], capabilities: int) -> tuple[Trap, ...]:
    """Traps that let the wanted ones pass, where the host has them: steps, failed emulations.

    Raises:
        NotSupportedError: interrupts need a first step, and this host has none.
    """
    reasons = {trap.reason for trap in traps}
    can_step = arming.has_singlestep(capabilities)
    helpers = []
    if "mem_access" in reasons and can_step:
        helpers += ["singlestep", "emul_unimplemented"]
    if needs_steps(traps):
        if not can_step:
            raise NotSupportedError(
                "interrupts alone cannot be trapped on this host",
                why="they are asked for in the answer to another event, and no step can make one",
                hint="add a synchronous event, for instance: -e interrupt,cr3",
            )
        helpers.append("singlestep")
    offered = (reason for reason in dict.fromkeys(helpers) if reason not in reasons)
    return tuple(
        Trap(f"{reason} (helper)", reason) for reason in offered if capabilities >> CAPABILITIES[reason] & 1
    )
