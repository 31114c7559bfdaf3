"""Every kind of event: how many, in which order, with which values."""

from __future__ import annotations

from tests.lab.guest.expected import KINDS, Want, events, watch_all
from tests.lab.guest.facts import TIMES, value
from tests.lab.rig import Rig
from tests.lab.scenario import Seen, number, watched

#: What the guest counts itself when all kinds of this emulator have had their effect.
_TALLIES = {"int3": "N_INT3", "trap": "N_TRAP", "icebp": "N_ICEBP", "cpuid": "N_CPUID"}


def _check(seen: Seen, wanted: list[Want]) -> None:
    assert seen.result.status == 0, seen.result.errors
    got = [
        Want(event["reason"], {key: number(event[event["reason"]][key]) for key in want.payload})
        if event["reason"] == want.reason
        else Want(event["reason"])
        for event, want in zip(seen.events, wanted, strict=False)
    ]
    assert got == wanted[: len(got)]
    assert len(seen.events) == len(wanted)


def _check_tallies(seen: Seen, words: list[str]) -> None:
    """The guest saw its own exceptions and results: the answers let everything happen."""
    expected = {name: TIMES[times] if name in words else 0 for name, times in _TALLIES.items()}
    assert {name: seen.tallies[name] for name in expected} == expected
    assert seen.tallies["desc"] == int("desc" in words)


def test_one_kind(rig: Rig, word: str) -> None:
    kind = KINDS[word]
    seen = watched(rig, word, kind.watch)
    _check(seen, events(word, kind.watch))
    _check_tallies(seen, [word])


def test_all_kinds_at_once(rig: Rig) -> None:
    line, watch = watch_all(rig.cpu)
    seen = watched(rig, line, watch)
    _check(seen, events(line, watch))
    _check_tallies(seen, line.split())


def test_instruction_pointers(rig: Rig) -> None:
    """An event tells where its instruction is: for a request, the hypercall page."""
    seen = watched(rig, "request", "guest-request")
    stub = value("HYPERCALLS") + 34 * 32
    assert {number(event["regs"]["rip"]) for event in seen.events} == {stub + 5}  # behind mov $34,%eax
    assert {number(event["regs"]["rax"]) for event in seen.events} == {34}


def test_what_is_watched_is_what_is_shown(rig: Rig) -> None:
    seen = watched(rig, "cr3 cr4 msr cpuid", "cr4:mask=0x80,msr:lstar:onchange")
    assert {event["reason"] for event in seen.events} == {"write_ctrlreg", "mov_to_msr"}
    # PGE is masked: what is left of CR4 is the boot's write.
    assert sum(event["reason"] == "write_ctrlreg" for event in seen.events) == 1
