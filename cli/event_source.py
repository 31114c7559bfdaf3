"""One event from wherever it is: a raw slot, a JSON line, a capture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xenintro.abi import interface
from xenintro.capture.reader import Capture
from xenintro.capture.replay import RecordedMemory, guest_of
from xenintro.codec import decode
from xenintro.errors import DamagedInputError, UsageError
from xenintro.guest import Guest
from xenintro.policy.requests import fields_of_line, make_request
from xenintro_cli.recorded import wanted_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.answered import Answered
    from xenintro.events import Event


class OneEvent(NamedTuple):
    """An event, and what is known of its guest."""

    event: Event
    guest: Guest


def events_up_to(place: str, seq: int, abi: str, arch: str) -> Iterator[OneEvent]:
    """The event that is meant, last; before it those that came before it, if it is in a capture.

    Those among these that no policy was asked about are left out: rules have not seen them.

    Args:
        place: a file with a raw slot, a JSON line or a capture, ``-`` for a JSON line on stdin.
        seq: its number in a capture, from 0.
        abi, arch: of a raw slot.

    Raises:
        UsageError: no such file, or no such event in it.
        DamagedInputError: neither a slot nor a line nor a capture.
    """
    data = _read(place)
    if data.lstrip().startswith(b"{"):
        yield _of_line(data)
        return
    layout = interface(abi, arch)
    if len(data) == layout.slot_size:
        yield OneEvent(decode(data, layout), _nobody())
        return
    with Capture(place) as capture:
        guest = guest_of(capture.info, RecordedMemory(capture))
        for answered in asked_up_to(capture, place, seq):
            guest.begin(answered.taken_ns)
            yield OneEvent(answered.event, guest)


def asked_up_to(capture: Capture, place: str, seq: int) -> Iterator[Answered]:
    """The requests of a capture that policies were asked about, up to the one that is meant.

    Raises:
        UsageError: there is no such request.
    """
    wanted, count = wanted_of("", capture.info, capture.interface), 0
    for count, answered in enumerate(capture, 1):
        if count > seq or (answered.asked and wanted(answered.event)):
            yield answered
        if count > seq:
            return
    raise UsageError(f"{place} has no request {seq}", why=f"it has {count}, counted from 0")


def _read(place: str) -> bytes:
    if place == "-":
        return sys.stdin.buffer.read()
    try:
        with Path(place).open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise UsageError(f"cannot read {place}", why=error.strerror or str(error)) from error


def _of_line(data: bytes) -> OneEvent:
    try:
        record: dict[str, Any] = msgspec.json.decode(data.split(b"\n")[0], type=dict[str, Any])
        layout = interface(str(record.get("abi", "vm_event-7")), str(record.get("arch", "x86_64")))
        request = make_request(layout, str(record.get("reason")), fields_of_line(record))
    except msgspec.MsgspecError as error:
        raise DamagedInputError("this is no JSON line", why=str(error)) from error
    guest = Guest(int(record.get("domid") or 0), "-", record.get("domain"), 1)
    return OneEvent(decode(request, layout), guest)


def _nobody() -> Guest:
    return Guest(0, "-", None, 1)
