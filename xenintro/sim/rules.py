"""Every rule that a client of Xen's monitor interface can break, by name, and who broke which."""

from __future__ import annotations

from typing import Any

#: Slug and sentence. Where the consequence is not obvious the sentence says it.
RULES = {
    "answered-twice": "a response for a vCPU whose requests are all answered: it takes the "
    "slot of another vCPU's answer",
    "beyond-requests": "rsp_prod was pushed past the requests: Xen takes stale slots for responses",
    "unsolicited-response": "a response that belongs to no request",
    "rescued-ring-kept": "requests on a ring after unsolicited responses: Xen counts more free "
    "slots than there are, and overwrites unanswered requests",
    "wrong-version": "a response of another interface version: Xen drops it, the vCPU stays paused",
    "no-such-vcpu": "a response for a vCPU that the domain does not have",
    "wrong-reason": "the response names another reason than the request",
    "unpause-not-paused": "VCPU_PAUSED in the response to an asynchronous event",
    "flag-ignored": "a response flag that Xen ignores for this reason, release or state",
    "flag-undefined": "a response flag that this interface version does not have",
    "request-flag-echoed": "a flag that only requests carry came back in the response",
    "payload-not-echoed": "Xen reads the payload of this response, and it is not the request's",
    "registers-and-emulation-data": "SET_REGISTERS together with emulation data: they share a union",
    "ring-not-initialised": "a trap was armed before SHARED_RING_INIT",
    "trap-before-ring": "a trap was armed while no ring was enabled",
    "not-unmasked": "the event channel's port was read and not unmasked while events came",
    "page-kept": "the ring page is still mapped long after the domain died: it stays a zombie",
    "requests-unanswered": "the ring was disabled with unanswered requests: their vCPUs stay paused for ever",
    "vcpu-left-frozen": "a vCPU was left paused by an event that nobody will answer",
    "effects-lost": "the ring was disabled before a vCPU ran again: its new registers, emulation "
    "or deferred write are lost",
    "traps-left": "traps were still armed when the ring was disabled",
    "singlestep-left": "single-step was left on: the vCPU gets no interrupts any more",
    "access-left": "page permissions were left restricted",
    "access-required-left": "access_required was left on: the next violation crashes the domain",
    "views-left": "altp2m was left on, or a vCPU in another view than 0",
    "ring-left": "the client went away and left the ring enabled",
    "domain-left-paused": "the domain was left paused",
    "endless-loop": "the answers make the guest execute one instruction for ever",
    "guest-crashed": "the answer made the guest execute what is no instruction, and crash",
    "domid-invalid": "a vm_event call on DOMID_INVALID: it panics Xen 4.13 to 4.17.6",
    "null-event-state": "a monitored write without a ring goes through a null pointer inside Xen",
}


class Rulebook:
    """Collects broken rules: each rule once, with a count and what happened first."""

    def __init__(self) -> None:
        self._broken: dict[str, dict[str, Any]] = {}

    def broke(self, rule: str, detail: str) -> None:
        """Note that a client broke a rule."""
        entry = self._broken.get(rule)
        if entry is None:
            entry = {"rule": rule, "what": RULES[rule], "count": 0, "first": detail}
            self._broken[rule] = entry
        entry["count"] += 1

    def entries(self) -> list[dict[str, Any]]:
        """The broken rules, in the order of their first breach."""
        return [dict(entry) for entry in self._broken.values()]
