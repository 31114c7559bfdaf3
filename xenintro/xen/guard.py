"""The deadline: a C thread that lets an event happen when Python has left it unanswered too long.

The thread runs without the interpreter, so nothing that Python does, or fails to do, holds it up. What it
sends is compiled here from `xenintro.response.allow`, the table that the loop uses too.
"""

from __future__ import annotations

from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from xenintro.abi import Flag
from xenintro.abi.constants import NO_ERROR_CODE, TRAP_DEBUG, TRAP_INT3
from xenintro.codec import decode
from xenintro.errors import UsageError, XenintroError
from xenintro.response import SKIPPED, UNASKED, allow
from xenintro.units import format_ns
from xenintro.xen.injection import INT3_LENGTH, SW_EXCEPTION
from xenintro.xen.ring import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xenintro.abi import Field, Interface
    from xenintro.response import Injection
    from xenintro.xen.evtchn import NotifyTarget
    from xenintro.xen.ring import Ring

#: Seconds. Below the least, the thread would look so often that it costs something; beyond the most, a guest
#: takes its own vCPU for dead (Linux: soft lockup after 20 s).
DEFAULT_DEADLINE, LEAST_DEADLINE, MOST_DEADLINE = 0.25, 0.01, 20.0

_VECTORS = {"software_breakpoint": TRAP_INT3, "debug_exception": TRAP_DEBUG}


class InjectTarget(NamedTuple):
    """Where xc_hvm_inject_trap is, a handle that nobody else uses, and the domain."""

    function: int
    handle: int
    domid: int


class MissedSlot(NamedTuple):
    """A request that the thread has answered. Times are monotonic nanoseconds.

    ``since_ns`` is not later than when the request came, and at most an eighth of the deadline earlier.
    ``claimed``: the loop had claimed it (`Ring.claim`), so what goes with its answer may have been done.
    ``before``: requests that the loop took before it; ``taken``: it took this one too.
    """

    raw: bytes
    claimed: bool
    since_ns: int
    answered_ns: int
    before: int
    taken: bool


class Guard:
    """The deadline thread of one ring.

    Args:
        ring: whose requests; it stays mapped until `stop`.
        interface: of its slots.
        deadline: seconds that a request waits at most; it may be answered an eighth of that earlier. While
            the loop injects a trap (`inject`), that request and those behind it wait up to twice as long.
        notify: how Xen is told of responses (`EventChannel.notify_target`); None tells nobody.
        inject: how a trap is delivered before its answer; None delivers none. The loop uses a handle of
            its own for the same domain.
        singlestep_always: vCPUs step because somebody asked for it: an answer does not end that.
        interrupts: every answer asks for the next interrupt.
        beat: address of a 64-bit word that gets the time of every look; it stays mapped until `stop`.

    Raises:
        UsageError: a deadline that is too short.
    """

    def __init__(
        self,
        ring: Ring,
        interface: Interface,
        *,
        deadline: float = DEFAULT_DEADLINE,
        notify: NotifyTarget | None = None,
        inject: InjectTarget | None = None,
        singlestep_always: bool = False,
        interrupts: bool = False,
        beat: int | None = None,
    ) -> None:
        check_deadline(deadline)
        self._ring = ring
        self._slot_size = interface.slot_size
        # Forgotten while it runs, it ends before its memory and the ring's go. The partial keeps the ring and
        # the function: at the interpreter's end this module may be gone first.
        self._guard: Any = ffi.gc(ffi.new("struct xi_guard *"), partial(_forget, lib.xi_guard_stop, ring))
        self._missed: Any = ffi.new("struct xi_missed *")
        self._guard.deadline_ns = int(deadline * 1e9)
        self._guard.answers = _answers(interface, singlestep_always=singlestep_always, interrupts=interrupts)
        calls = self._guard.calls
        if notify is not None:
            calls.notify, calls.notify_handle, calls.port = notify
        if inject is not None:
            calls.inject, calls.inject_handle, calls.domid = inject
        beats = ffi.cast("uint64_t *", beat or 0)
        if lib.xi_guard_init(self._guard, ring.native, beats, monotonic_ns()) != 0:
            raise ValueError(f"slots of {ring.slot_size} bytes are too long")

    def start(self) -> None:
        """Run the thread.

        Raises:
            XenintroError: the system has no thread left.
        """
        if errno := lib.xi_guard_start(self._guard):
            raise XenintroError("cannot start the deadline thread", why=f"pthread_create: errno {errno}")

    def stop(self) -> None:
        """End the thread; it has ended when this returns. Fine twice, and in a forked child that has none."""
        lib.xi_guard_stop(self._guard)

    def look(self, now_ns: int) -> int:
        """What the thread does over and over, once; returns when to do it again. Not while it runs."""
        due: int = lib.xi_guard_look(self._guard, now_ns)
        return due

    def inject(self, target: InjectTarget, now_ns: int, injection: Injection | None = None) -> int:
        """Inject a trap into the vCPU of the request that the loop answers next, so that nobody else does.

        One call without the interpreter, so nothing that other Python threads do comes between the look at
        whether the request still waits and the injection.

        Args:
            target: with a handle of the loop's own.
            now_ns: CLOCK_MONOTONIC.
            injection: the trap; None injects the request's own.

        Returns:
            The errno of the call; 0 also where the thread has answered: then nothing was injected.
        """
        trap: Any = ffi.NULL
        if injection is not None:
            code = NO_ERROR_CODE if injection.error_code is None else injection.error_code
            values = (injection.vector, injection.type, code, injection.insn_length, injection.extra)
            trap = ffi.new("struct xi_trap *", values)
        errno: int = lib.xi_guard_inject(self._guard, target.function, target.handle, trap, now_ns)
        return errno

    def missed(self) -> Iterator[MissedSlot]:
        """What was answered by the thread since the last time this was asked, oldest first."""
        missed = self._missed
        while lib.xi_guard_missed(self._guard, missed):
            raw = bytes(ffi.buffer(missed.request, self._slot_size))
            times = (missed.since_ns, missed.answered_ns)
            yield MissedSlot(raw, bool(missed.claimed), *times, missed.before, bool(missed.taken))

    def response(self, raw: bytes) -> bytes:
        """What the thread sends for a request."""
        out = ffi.new("uint8_t[]", self._slot_size)
        lib.xi_guard_response(self._guard, raw, out)
        return bytes(ffi.buffer(out))

    @property
    def answered(self) -> int:
        """Requests that the thread has answered."""
        count: int = self._guard.answered
        return count

    @property
    def lost(self) -> int:
        """Those among them that `missed` will never tell: too many came at once."""
        count: int = self._guard.lost
        return count

    @property
    def longest_ns(self) -> int:
        """The longest that one of them waited."""
        longest: int = self._guard.longest_ns
        return longest


def _forget(stop: Callable[[Any], None], _ring: Ring, guard: Any) -> None:
    stop(guard)


def check_deadline(seconds: float) -> None:
    """Pass a deadline that the thread can keep.

    Raises:
        UsageError: it is too short or too long.
    """
    if not LEAST_DEADLINE <= seconds <= MOST_DEADLINE:
        raise UsageError(
            f"a deadline of {format_ns(seconds * 1e9)}",
            why=f"it is {LEAST_DEADLINE * 1000:g} ms to {MOST_DEADLINE:g} s: a vCPU stands still that long",
            hint="for instance: --deadline 250ms",
        )


def _answers(interface: Interface, *, singlestep_always: bool, interrupts: bool) -> dict[str, Any]:
    """A struct xi_answers: how to answer any request of this interface."""
    header = interface.header
    reasons = interface.reasons or {0: "mem_paging"}  # mem_event of Xen 4.0: the paging ring only
    rules: list[dict[str, Any]] = [{"known": 0}] * lib.XI_GUARD_REASONS
    for code, reason in reasons.items():
        if reason == "unknown":  # the least response
            continue
        rules[code] = _rule(interface, code, reason)
        if reason == "singlestep" and singlestep_always:
            rules[code]["flags"] = 0
        if interrupts and reason not in UNASKED:
            rules[code]["flags"] |= interface.flags_to_wire(Flag.GET_NEXT_INTERRUPT)
    return {
        "version": _field(header.get("version"), interface.version or 0),
        "reason": _field(header.get("reason"), 0),
        "flags": _field(header["flags"], 0),
        "vcpu_id": _field(header["vcpu_id"], 0),
        "echoed": _echoed(interface),
        "payload": interface.payload,
        "registers": interface.registers_block or (0, 0),
        "rules": rules,
    }


def _echoed(interface: Interface) -> list[tuple[int, int]]:
    """What every response repeats of its request: see `xenintro.codec.acknowledge`."""
    header = interface.header
    fields = [header[name] for name in ("version", "reason", "vcpu_id") if name in header]
    if interface.family == "mem_event" and "reason" in header:
        fields.append(interface.payloads["mem_access"]["gfn"])
    return [(field.offset, field.size) for field in fields]


def _rule(interface: Interface, code: int, reason: str) -> dict[str, Any]:
    """A struct xi_rule: the loop's answer to an event of this reason whose vCPU waits."""
    response = allow(decode(_request(interface, code), interface))
    payload = interface.payloads.get(reason, {})
    rule: dict[str, Any] = {"known": 1, "flags": interface.flags_to_wire(response.flags)}
    if response.registers is not None:
        register, length = SKIPPED[reason]
        rule["always"] = 1
        rule["counter"] = _field(interface.registers[register], 0)
        rule["length"] = _field(None if length else payload["insn_length"], length or 0)
    if response.reinject:
        rule["vector"] = _VECTORS[reason]
        rule["type"] = _field(payload.get("type"), SW_EXCEPTION)
        rule["insn_length"] = _field(payload.get("insn_length"), INT3_LENGTH)
        pending_dbg = payload.get("pending_dbg") if reason == "debug_exception" else None
        rule["extra"] = _field(pending_dbg, 0)
    return rule


def _request(interface: Interface, code: int) -> bytes:
    """A request with nothing but a reason, of a vCPU that waits."""
    raw = bytearray(interface.slot_size)
    header = interface.header
    for name, value in (("version", interface.version), ("reason", code), ("flags", Flag.VCPU_PAUSED)):
        if name in header and value is not None:
            field = header[name]
            raw[field.offset : field.offset + field.size] = int(value).to_bytes(field.size, "little")
    return bytes(raw)


def _field(field: Field | None, fixed: int) -> tuple[int, int, int]:
    """A struct xi_field: where a number is, and what stands for it where it is not there."""
    return (field.offset, field.size, fixed) if field is not None else (0, 0, fixed)
