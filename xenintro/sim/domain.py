"""A domain: its vCPUs, memory, page permissions, ring, and who has paused it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from xenintro.sim.memory import MAX_GFN, Memory
from xenintro.sim.monitor import Monitor, Quirks
from xenintro.sim.p2m import P2M, UNSET, View
from xenintro.sim.ring import Ring
from xenintro.sim.vcpu import EventState, Vcpu

if TYPE_CHECKING:
    from xenintro.sim.evtchn import Channel
    from xenintro.sim.machine import Machine
    from xenintro.sim.program import Program

MAX_ALTP2M = 10
_ALTP2M_EXTERNAL = 2  # XEN_ALTP2M_external

#: HVM parameters (public/hvm/params.h).
PARAM_MONITOR_RING_PFN = 28
PARAM_ALTP2M = 35

SHUTDOWN_CRASH = 3


class Domain:
    """A guest, or dom0.

    Attributes:
        pauses: controller_pause_count; `foreign_pauses` of them are another toolstack's.
        started: a guest that waited for a trap has seen one.
        ring: the monitor ring's session, or None; `ring_frame` is its page.
        pages: all of its pages, and which gfn each is behind.
        memory: the guest's RAM.
        shutdown: the reason, or None while it runs.
        dying: destroyed, but something still holds a page of it.
    """

    def __init__(
        self, machine: Machine, domid: int, name: str, program: Program, vcpus: int, hvm: bool
    ) -> None:
        self.machine = machine
        self.domid = domid
        self.name = name
        self.uuid = uuid.uuid5(uuid.NAMESPACE_DNS, name)
        self.hvm = hvm
        self.program = program
        self.quirks = Quirks.of(machine.release)
        self.monitor = Monitor(machine.release)
        self.host = P2M(MAX_GFN + 1)
        self.views: dict[int, View] = {}
        self.altp2m = False
        self.pauses = 0
        self.foreign_pauses = 0
        self.started = False
        self.shutdown: int | None = None
        self.dying = False
        self.ring: Ring | None = None
        self.ring_frame = 0
        self.params = {PARAM_MONITOR_RING_PFN: 0x4FF2, PARAM_ALTP2M: _ALTP2M_EXTERNAL} if hvm else {}
        self.pages = Memory(f"guest-{domid}")
        self.memory = self.pages.ram
        for offset, code in program.image():
            self.memory[offset : offset + len(code)] = code
        self.vcpus = [Vcpu(self, vcpu_id) for vcpu_id in range(vcpus)]

    @property
    def stopped(self) -> bool:
        """Whether none of its vCPUs may run."""
        return bool(self.pauses or self.dying or self.shutdown is not None)

    def queue(self) -> list[Vcpu]:
        """Its vCPUs in the order of their turns: those that a free slot has woken come first.

        Xen wakes them before it unpauses the vCPU whose answer freed the slot.
        """
        if self.ring is None or not self.ring.woken:
            return self.vcpus
        woken, self.ring.woken = self.ring.woken, []
        return woken + self.vcpus

    def has_gfn(self, gfn: int) -> bool:
        """Whether there is memory behind a gfn."""
        return self.pages.frame(gfn) is not None

    def has_view(self, view: int) -> bool:
        """Whether an altp2m view exists; 0 is the host's table."""
        return view == 0 or view in self.views

    def view(self, view: int) -> P2M:
        """The table of a view."""
        return self.views[view] if view else self.host

    def access(self, view: int, gfn: int) -> int:
        """The permission that counts for an access."""
        if not view:
            return self.host.access[gfn]
        table = self.views[view]
        access = table.access[gfn]
        return table.populate(gfn) if access == UNSET else access

    def allocate_event_state(self) -> None:
        """vm_event_init_domain."""
        for vcpu in self.vcpus:
            if vcpu.event is None:
                vcpu.event = EventState()

    def free_event_state(self) -> None:
        """vm_event_cleanup_domain: what responses left is lost, which a dead guest does not notice."""
        alive = self.shutdown is None
        for vcpu in self.vcpus:
            if alive and vcpu.event is not None and vcpu.event.pending:
                self.machine.rules.broke("effects-lost", f"vcpu {vcpu.vcpu_id}")
            vcpu.event = None

    def make_ring(self, channel: Channel) -> Ring:
        """A ring on the page behind its gfn, which leaves the physmap: libxc does that after the domctl."""
        self.ring_frame = self.pages.take(self.params[PARAM_MONITOR_RING_PFN])
        self.ring = Ring(self, self.pages.page(self.ring_frame), channel)
        return self.ring

    def drop_ring(self) -> None:
        """The ring's end, if there is one: its page is free once nobody else maps it."""
        if self.ring is not None:
            self.ring.release()
            self.ring = None
            self.pages.free(self.ring_frame)

    def forget_traps(self) -> None:
        """arch_monitor_cleanup_domain: 4.6 has none (b848dc83cc)."""
        if self.machine.release >= (4, 7):
            self.monitor = Monitor(self.machine.release)

    def leave_views(self) -> None:
        """altp2m off, or its last view gone: every vCPU is back in view 0."""
        for vcpu in self.vcpus:
            if vcpu.view not in self.views:
                vcpu.view = 0

    def crash(self) -> None:
        """domain_crash."""
        self.shut_down(SHUTDOWN_CRASH)

    def shut_down(self, reason: int) -> None:
        """domain_shutdown: vCPUs stop, everything else stays as it is."""
        if self.shutdown is None:
            self.shutdown = reason
            self.machine.deaths += 1

    def close(self) -> None:
        """Free it."""
        self.drop_ring()
        self.pages.close()

    def describe(self) -> dict[str, Any]:
        """Everything about it that a test may ask."""
        return {
            "domid": self.domid,
            "name": self.name,
            "pauses": self.pauses,
            "shutdown": self.shutdown,
            "dying": self.dying,
            "ring": self.ring is not None,
            "armed": self.monitor.armed(),
            "control_registers": self.monitor.control_register_values,
            "altp2m": self.altp2m,
            "access_required": self.host.access_required,
            "default_access": self.host.default_access,
            "restricted": self.host.restricted(),
            "vcpus": [describe_vcpu(vcpu) for vcpu in self.vcpus],
        }


def describe_vcpu(vcpu: Vcpu) -> dict[str, Any]:
    """What a test may ask of a vCPU."""
    return {
        "event_pauses": vcpu.event_pauses,
        "ring_blocked": vcpu.ring_blocked,
        "waiting": vcpu.waiting,
        "halted": vcpu.halted,
        "single_step": vcpu.single_step,
        "view": vcpu.view,
        "retired": vcpu.retired,
        "traps": {str(vector): count for vector, count in vcpu.traps.items()},
        "interrupts": vcpu.interrupts,
        "pending_interrupts": len(vcpu.pending_interrupts),
        "registers": {name: value for name, value in vcpu.regs.items() if name != "zero"},
        "msrs": {str(msr): value for msr, value in vcpu.msrs.items()},
        "xcr0": vcpu.xcr0,
    }
