"""What whoever started the simulator may ask of it: state, disasters, waiting. For tests and verbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xenintro.sim.domain import Domain
    from xenintro.sim.machine import Machine

Condition = Callable[[], bool]

_SUSPEND = 2  # SHUTDOWN_suspend


def obey(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order: ``do`` and its arguments; ``domid`` is 1 unless given.

    Raises:
        KeyError: no such order or domain.
    """
    return ORDERS[order["do"]](machine, order)


def condition(machine: Machine, order: dict[str, Any]) -> Condition:
    """When a ``wait`` is over: ``answered``, ``events``, ``retired``, ``stuck`` reach ``count``, or ``idle``.

    Raises:
        KeyError: nothing of that name can be waited for.
    """
    what, count = order["for"], int(order.get("count", 1))
    if what == "idle":
        return lambda: all(vcpu.halted for vcpu in _domain(machine, order).vcpus)
    if what == "gone":
        domid = order.get("domid", 1)
        return lambda: domid not in machine.domains
    if what == "retired":
        vcpus = _domain(machine, order).vcpus
        return lambda: all(vcpu.retired >= count for vcpu in vcpus)
    if what == "progress":
        wanted = [(vcpu, vcpu.retired + count) for vcpu in _domain(machine, order).vcpus]
        return lambda: all(vcpu.retired >= retired for vcpu, retired in wanted)
    if what == "stuck":
        return lambda: len(machine.stuck()) >= count
    if what == "asleep":
        vcpus = _domain(machine, order).vcpus
        return lambda: sum(vcpu.waiting for vcpu in vcpus) >= count
    if what == "attached":
        return lambda: _domain(machine, order).ring is not None
    if what == "called":
        return lambda: machine.faults.count(order["call"]) >= count
    if what == "broken":
        return lambda: any(entry["rule"] == order["rule"] for entry in machine.rules.entries())
    if what not in ("answered", "events"):
        raise KeyError(what)
    return lambda: int(getattr(machine, what)) >= count


def _domain(machine: Machine, order: dict[str, Any]) -> Domain:
    return machine.domains[int(order.get("domid", 1))]


def _state(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    return _domain(machine, order).describe()


def _report(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    return machine.report()


def _destroy(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    machine.destroy(_domain(machine, order))
    return {}


def _crash(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    _domain(machine, order).crash()
    return {}


def _shutdown(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    _domain(machine, order).shut_down(int(order.get("reason", 0)))
    return {}


def _suspend(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    """What saving and migrating begin with."""
    _domain(machine, order).shut_down(_SUSPEND)
    return {}


def _resume(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    """A suspended domain goes on: it was only a snapshot, or the migration failed."""
    _domain(machine, order).shutdown = None
    return {}


def _mem_limit(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    _domain(machine, order).pages.spare = int(order.get("spare", 0))
    return {}


def _reboot(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    return {"domid": machine.reboot(_domain(machine, order)).domid}


def _pause(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    domain = _domain(machine, order)
    domain.pauses += 1
    domain.foreign_pauses += 1
    return {}


def _unpause(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    domain = _domain(machine, order)
    domain.pauses -= 1
    domain.foreign_pauses -= 1
    return {}


def _fault(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    machine.faults.add(order["fault"])
    return {}


def _forget_faults(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    return {"left": machine.faults.clear()}


def _calls(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    return machine.faults.counts()


def _access(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    domain = _domain(machine, order)
    return {"access": domain.access(int(order.get("view", 0)), int(order["gfn"]))}


def _memory(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    domain = _domain(machine, order)
    start = int(order["address"])
    if "write" in order:
        data = bytes.fromhex(order["write"])
        domain.memory[start : start + len(data)] = data
    return {"data": domain.memory[start : start + int(order.get("length", 0))].hex()}


def _log(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    machine.log_answers(order.get("path"))
    return {}


def _params(machine: Machine, order: dict[str, Any]) -> dict[str, Any]:
    domain = _domain(machine, order)
    domain.params.update({int(param): value for param, value in order.get("set", {}).items()})
    return {"params": {str(param): value for param, value in domain.params.items()}}


ORDERS: dict[str, Callable[[Machine, dict[str, Any]], dict[str, Any]]] = {
    "state": _state,
    "report": _report,
    "destroy": _destroy,
    "crash": _crash,
    "shutdown": _shutdown,
    "suspend": _suspend,
    "resume": _resume,
    "reboot": _reboot,
    "mem-limit": _mem_limit,
    "pause": _pause,
    "unpause": _unpause,
    "fault": _fault,
    "forget-faults": _forget_faults,
    "calls": _calls,
    "access": _access,
    "memory": _memory,
    "log": _log,
    "params": _params,
}
