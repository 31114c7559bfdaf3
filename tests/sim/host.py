"""A simulated host in this process, and a monitor for it that is as simple as can be."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from xenintro.abi import interface
from xenintro.codec import acknowledge, decode, encode
from xenintro.response import Response
from xenintro.sim import calls_domain, calls_monitor
from xenintro.sim.calls import Client, perform
from xenintro.sim.launch import RELEASES
from xenintro.sim.machine import Machine
from xenintro.sim.scenario import Scenario

if TYPE_CHECKING:
    from xenintro.events import Event

__all__ = ["Host", "Monitor", "calls_domain", "calls_monitor"]

#: Hosts of the running test, closed at its end.
LIVE: list[Host] = []


class Host:
    """A machine whose time passes only when a test says so."""

    def __init__(
        self,
        ops: list[dict[str, Any]] | None = None,
        *,
        version: int = 7,
        release: str | None = None,
        vcpus: int = 1,
        rounds: int = 0,
        vendor: str = "intel",
    ) -> None:
        release = release or RELEASES[version]
        self.interface = interface(f"vm_event-{version}", release=release)
        scenario = Scenario("test", "", 0, rounds, False, ops or [{"do": "nop"}])
        self.machine = Machine(self.interface, scenario, vcpus=vcpus, vendor=vendor)
        self.client = Client(self.machine)
        self.monitors: list[Monitor] = []
        LIVE.append(self)

    def close(self) -> None:
        for monitor in self.monitors:
            monitor.close()
        self.machine.close()

    @property
    def domain(self):
        return self.machine.domains[1]

    @property
    def vcpu(self):
        return self.domain.vcpus[0]

    def call(self, name: str, *arguments: int, data: bytes = b"", client: Client | None = None):
        """Make a call; OSError if it fails."""
        return perform(client or self.client, name, (*arguments, *[0] * (8 - len(arguments))), data)

    def fails(self, name: str, *arguments: int, data: bytes = b"", client: Client | None = None) -> int:
        """The errno of a call that must fail."""
        try:
            self.call(name, *arguments, data=data, client=client)
        except OSError as error:
            assert error.errno is not None
            return error.errno
        raise AssertionError(f"{name} succeeded")

    def run(self, instructions: int = 200) -> None:
        """Let every vCPU that can run execute so many instructions, or stop."""
        for vcpu in self.domain.vcpus:
            vcpu.budget = instructions
        for _ in range(3):  # one may wake another
            for vcpu in self.domain.vcpus:
                if not vcpu.stopped and vcpu.budget > 0:
                    vcpu.run()

    def broken(self) -> list[str]:
        """Names of the broken rules, those that the end would show included."""
        return [entry["rule"] for entry in self.machine.report()["violations"]]


class Monitor:
    """Attached in the right order: ring, init, bind; it answers only when told."""

    def __init__(self, host: Host, *, init: bool = True) -> None:
        self.host = host
        host.monitors.append(self)
        self.interface = host.interface
        result = host.call("xc_monitor_enable", 1)
        frame, remote = struct.unpack("=QI", result.out)
        self.mapping = host.domain.pages.page(frame)
        self.page = memoryview(self.mapping)
        self.words = self.page.cast("I")
        if init:
            self.page[:64] = struct.pack("<IIII", 0, 1, 0, 1) + bytes(48)
        self.req_cons = 0
        self.rsp_prod = 0
        self.evtchn = Client(host.machine)
        host.call("xenevtchn_open", client=self.evtchn)
        self.port = host.call("xenevtchn_bind_interdomain", 1, remote, client=self.evtchn).value

    def requests(self) -> list[bytes]:
        """Take what is on the ring."""
        taken = []
        while self.req_cons != self.words[0]:
            start = 64 + (self.req_cons & 7) * self.interface.slot_size
            taken.append(bytes(self.page[start : start + self.interface.slot_size]))
            self.req_cons = self.req_cons + 1 & 0xFFFFFFFF
        self.unmask()
        return taken

    def events(self) -> list[Event]:
        """Take what is on the ring, decoded."""
        return [decode(raw, self.interface) for raw in self.requests()]

    def event(self) -> Event:
        """The one event on the ring."""
        (event,) = self.events()
        return event

    def unmask(self) -> None:
        """As a client does before it drains."""
        assert self.evtchn.device is not None
        device = self.evtchn.device
        device.far.setblocking(False)
        try:
            while True:
                device.far.send(device.far.recv(4))
        except BlockingIOError:
            pass
        device.collect()

    def push(self, *slots: bytes, notify: bool = True) -> None:
        """Put raw responses."""
        for raw in slots:
            start = 64 + (self.rsp_prod & 7) * self.interface.slot_size
            self.page[start : start + len(raw)] = raw
            self.rsp_prod = self.rsp_prod + 1 & 0xFFFFFFFF
        self.words[2] = self.rsp_prod
        if notify:
            self.notify()

    def notify(self) -> None:
        self.host.call("xenevtchn_notify", self.port, client=self.evtchn)

    def answer(self, event: Event, response: Response | None = None) -> None:
        """Answer an event: plainly unless told otherwise."""
        response = response or Response.plain()
        if response.reinject:
            self.host.call(
                "xc_hvm_inject_trap",
                *(1, event.vcpu_id, 3 if event.reason == "software_breakpoint" else 1),
                *(event.type or 6, 0xFFFFFFFF, event.insn_length or 1, 0),
            )
        self.push(encode(event, response))

    def plain(self, raw: bytes) -> bytes:
        """The least response to a request."""
        return acknowledge(raw, self.interface)

    def disable(self) -> None:
        self.host.call("xc_monitor_disable", 1)

    def close(self) -> None:
        """What the kernel does at the end of the process."""
        self.words.release()
        self.page.release()
        self.mapping.close()
        if self.evtchn.device is not None:
            self.evtchn.device.close()
            self.evtchn.device = None
