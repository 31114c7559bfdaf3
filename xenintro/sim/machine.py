"""The simulated host: its release, its domains, time, and what clients did wrong. No I/O here."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from xenintro.sim import responses
from xenintro.sim.domain import Domain
from xenintro.sim.evtchn import Channel
from xenintro.sim.faults import Faults
from xenintro.sim.program import Program
from xenintro.sim.ring import REQ_PROD, RSP_EVENT, RSP_PROD
from xenintro.sim.rules import Rulebook
from xenintro.sim.state import SlotWriter
from xenintro.stats import Histogram

if TYPE_CHECKING:
    from xenintro.abi import Interface
    from xenintro.sim.ring import Ring
    from xenintro.sim.scenario import Scenario

#: Seconds of a slice of simulated time, and instructions in it of a guest that nobody watches.
SLICE = 0.005
_UNWATCHED = 200

#: Instructions of a vCPU between two looks at the sockets.
_QUANTUM = 2000

#: Responses that Xen parses at most once rsp_prod is out of bounds. The real one goes on for up to
#: four billion slots.
_RUNAWAY = 64


class Machine:
    """A host with dom0, one guest (domain 1) and one PV guest (domain 2).

    Attributes:
        interface: the layout of its ring; `release` is the Xen release behind it.
        vendor: ``intel`` or ``amd``.
        domains: by domid.
        answer_times: nanoseconds from a request's posting to its response being consumed.
        events, answered: requests posted, and requests that got their response.
        by_reason: `events` by reason.
        caller: the process whose call is under way.
        deaths, births: how often domains were destroyed, crashed or shut down (VIRQ_DOM_EXC), or were made.
    """

    def __init__(
        self,
        interface: Interface,
        scenario: Scenario,
        *,
        vcpus: int = 1,
        vendor: str = "intel",
        faults: list[dict[str, Any]] | None = None,
    ) -> None:
        major, minor = (interface.release or interface.releases[-1]).split(".")
        self.release = (int(major), int(minor))
        self.interface = interface
        self.scenario = scenario
        self.vendor = vendor
        self.rules = Rulebook()
        self.faults = Faults(faults or [])
        self.writer = SlotWriter(interface)
        self.events = 0
        self._credit = 0.0  # instructions that the pace allows, a fraction of one included
        self.answered = 0
        self.answer_times = Histogram()
        self.by_reason: dict[str, int] = {}
        self.caller = 0
        self._log: int | None = None
        self.deaths = self.births = 0
        self._vcpus = vcpus
        self._next_domid = 3
        self._next_port = 5
        idle = Program([{"do": "hlt"}], 1)
        self.domains = {
            0: Domain(self, 0, "Domain-0", idle, 1, hvm=False),
            1: self._guest(1),
            2: Domain(self, 2, "pvguest", idle, 1, hvm=False),
        }
        self._slice_end = 0.0
        self._slice_events = 0

    def _guest(self, domid: int) -> Domain:
        program = Program(self.scenario.ops, self.scenario.rounds)
        return Domain(self, domid, "tiny", program, self._vcpus, hvm=True)

    def close(self) -> None:
        """Free everything."""
        self.log_answers(None)
        for domain in self.domains.values():
            domain.close()
        self.domains.clear()

    # Time.

    def turn(self) -> float | None:
        """Let every vCPU run for its share; how long to wait before the next turn, None: for ever."""
        now = time.monotonic()
        flowing = self.events != self._slice_events
        if now >= self._slice_end:
            self._slice_end = now + SLICE
            self._slice_events = self.events
            self._refill(flowing)
        elif flowing and not self.scenario.pace:
            self._refill(flowing)
        wait: float | None = None
        for domain in self.domains.values():
            for vcpu in domain.queue():
                if vcpu.stopped:
                    continue
                if vcpu.budget > 0:
                    vcpu.run()
                if not vcpu.stopped:
                    wait = 0.0 if self._unlimited() else max(0.0, self._slice_end - now)
        return wait

    def _unlimited(self) -> bool:
        return not self.scenario.pace and self.events != self._slice_events

    def _refill(self, flowing: bool) -> None:
        pace = self.scenario.pace
        for domain in self.domains.values():
            watched = domain.ring is not None
            if not self._started(domain):
                budget = 0
            elif flowing and not pace:
                budget = _QUANTUM
            elif watched and pace:
                self._credit += pace * SLICE
                budget = int(self._credit)
                self._credit -= budget
            else:
                budget = max(1, _UNWATCHED // len(domain.vcpus))
            for vcpu in domain.vcpus:
                vcpu.budget = budget

    def _started(self, domain: Domain) -> bool:
        """Whether the guest runs: one that waits does so until its events can be seen."""
        if self.scenario.waits and not domain.started and domain.ring is not None:
            domain.started = bool(domain.monitor.armed() or domain.host.restricted())
        return domain.started or not self.scenario.waits

    # Events.

    def posted(self, domain: Domain, ring: Ring, reason: str) -> None:
        """Count a request that is about to go on the ring."""
        self.events += 1
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1
        if ring.unsolicited and reason:
            self.rules.broke("rescued-ring-kept", f"domain {domain.domid}: {reason}")

    def consumed(self, request: bytes, response: bytes) -> None:
        """A request got its response: count, and log if somebody wants to know."""
        self.answered += 1
        if self._log is not None:
            os.write(self._log, self.caller.to_bytes(4, "little") + request + response)

    def log_answers(self, path: str | None) -> None:
        """Write what is consumed from now on to a file: the process that told of it, request, response."""
        if self._log is not None:
            os.close(self._log)
        self._log = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def enable_ring(self, domain: Domain) -> Ring:
        """XEN_VM_EVENT_ENABLE, after its checks. Libxc takes the page out of the physmap then."""
        domain.allocate_event_state()
        self._next_port += 1
        channel = Channel(self._next_port, lambda: self.resume(domain))
        return domain.make_ring(channel)

    def disable_ring(self, domain: Domain, ring: Ring) -> None:
        """XEN_VM_EVENT_DISABLE, after its checks. Nobody unpauses what an event has paused."""
        left = [vcpu_id for vcpu_id, requests in ring.unanswered.items() if requests]
        if left:
            vcpus = ", ".join(map(str, sorted(left)))
            self.rules.broke("requests-unanswered", f"domain {domain.domid}: vcpu {vcpus}")
        armed = domain.monitor.armed()
        if armed:
            self.rules.broke("traps-left", f"domain {domain.domid}: {', '.join(armed)}")
        domain.drop_ring()
        domain.free_event_state()
        domain.forget_traps()

    def resume(self, domain: Domain) -> None:
        """vm_event_resume: all pushed responses are consumed when this returns."""
        ring = domain.ring
        if ring is None:
            return
        taken = 0
        while (raw := ring.take()) is not None:
            responses.resume(self, ring, responses.parse(self, raw))
            taken += 1
            if taken > _RUNAWAY and ring.beyond:
                ring.skip()
                return

    def armed(self, domain: Domain, what: str) -> None:
        """A trap was armed: the ring must be there, and initialised."""
        ring = domain.ring
        if domain.dying:
            return  # its ring went with it, whatever the client did
        if ring is None:
            self.rules.broke("trap-before-ring", f"domain {domain.domid}: {what}")
            return
        fresh = ring.req_prod == 0 and ring.rsp_cons == 0
        untouched = ring.word(RSP_EVENT) == 0
        stale = ring.word(RSP_PROD) != 0 or ring.word(REQ_PROD) != 0
        if fresh and (untouched or stale):
            self.rules.broke("ring-not-initialised", f"domain {domain.domid}: {what}")

    # Lifecycle.

    def destroy(self, domain: Domain) -> None:
        """domain_kill: the ring goes, the domain too unless someone maps a page of it."""
        if domain.dying:
            return
        domain.dying = True
        self.deaths += 1
        domain.drop_ring()

    def forget(self, domain: Domain) -> None:
        """The last reference to a dying domain is gone."""
        del self.domains[domain.domid]
        domain.close()

    def reboot(self, domain: Domain) -> Domain:
        """What xl does: destroy it, and create it again under the next domid."""
        self.destroy(domain)
        fresh = self._guest(self._next_domid)
        self._next_domid += 1
        self.domains[fresh.domid] = fresh
        self.births += 1
        return fresh

    # Report.

    def report(self) -> dict[str, Any]:
        """The JSON report: what happened, what was broken, and what is still stuck."""
        rules = Rulebook()
        for domain in self.domains.values():
            if not domain.dying:
                _leftovers(domain, rules)
        return {
            "xen": ".".join(map(str, self.release)),
            "abi": self.interface.id,
            "events": self.events,
            "answered": self.answered,
            "answer_ns": {
                "p50": self.answer_times.percentile(50),
                "p99": self.answer_times.percentile(99),
                "max": self.answer_times.max,
            },
            "by_reason": self.by_reason,
            "violations": self.rules.entries() + rules.entries(),
            "stuck_vcpus": self.stuck(),
        }

    def stuck(self) -> list[int]:
        """The vCPUs that wait for an answer."""
        return [
            vcpu.vcpu_id
            for domain in self.domains.values()
            if not domain.dying and domain.shutdown is None
            for vcpu in domain.vcpus
            if vcpu.event_pauses or vcpu.ring_blocked or vcpu.waiting
        ]


def _leftovers(domain: Domain, rules: Rulebook) -> None:
    """What a client should have put back, as things stand."""
    where = f"domain {domain.domid}"
    if domain.ring is not None:
        rules.broke("ring-left", where)
    restricted = domain.host.restricted()
    if restricted:
        rules.broke("access-left", f"{where}: {len(restricted)} pages, the first is gfn {restricted[0]:#x}")
    if domain.host.default_access != 7:
        rules.broke("access-left", f"{where}: the default for new pages")
    if domain.host.access_required:
        rules.broke("access-required-left", where)
    if domain.altp2m:
        rules.broke("views-left", where)
    if domain.pauses > domain.foreign_pauses:
        rules.broke("domain-left-paused", f"{where}: {domain.pauses - domain.foreign_pauses} times")
    for vcpu in domain.vcpus if domain.shutdown is None else ():
        if vcpu.event_pauses and domain.ring is None:
            rules.broke("vcpu-left-frozen", f"{where}: vcpu {vcpu.vcpu_id}")
        if vcpu.single_step:
            rules.broke("singlestep-left", f"{where}: vcpu {vcpu.vcpu_id}")
