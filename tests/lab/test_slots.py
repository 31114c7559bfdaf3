"""The recorded slots of real Xens, decoded without one. How they were made: record.py."""

from __future__ import annotations

import lzma

import pytest

from tests.lab.guest.expected import Want, events, watch_all
from tests.lab.record import SLOTS
from tests.lab.releases import RELEASES
from tests.lab.scenario import number
from xenintro.abi import Flag, interface
from xenintro.codec import acknowledge, decode
from xenintro.sinks.jsonl import event_record

RECORDED = sorted(path.name.removesuffix(".requests.xz") for path in SLOTS.glob("*.requests.xz"))

#: What "allow" asks of Xen beside letting the vCPU run, by reason.
_ALLOWED = {
    "mem_access": Flag.EMULATE,
    "descriptor_access": Flag.EMULATE,
    "cpuid": Flag.SET_REGISTERS,
}


def _slots(name: str, part: str, size: int) -> list[bytes]:
    data = lzma.decompress((SLOTS / f"{name}.{part}.xz").read_bytes())
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_requests(name: str) -> None:
    cpu, xen = name.split("-")
    abi = interface(RELEASES[xen].abi)
    wanted = events(*watch_all(cpu))
    records = [event_record(decode(raw, abi)) for raw in _slots(name, "requests", abi.slot_size)]
    got = [
        Want(record["reason"], {key: number(record[record["reason"]].get(key)) for key in want.payload})
        for record, want in zip(records, wanted, strict=True)
    ]
    assert got == wanted


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_responses(name: str) -> None:
    """What Xen took for an answer: the echo, and the flags that let this reason happen."""
    abi = interface(RELEASES[name.split("-")[1]].abi)
    requests, responses = (_slots(name, part, abi.slot_size) for part in ("requests", "responses"))
    for request, response in zip(requests, responses, strict=True):
        header = bytearray(acknowledge(request, abi)[:16])
        header[4:8] = int(Flag.VCPU_PAUSED | _ALLOWED.get(decode(request, abi).reason, 0)).to_bytes(
            4, "little"
        )
        assert response[:16] == header
