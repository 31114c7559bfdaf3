"""What a policy may ask about its guest: memory, and the time of the event."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.simulated import simulated_host
from xenintro.errors import GuestReadError
from xenintro.guest import MAX_READ, Guest
from xenintro.xen.memory import LiveMemory

if TYPE_CHECKING:
    from pathlib import Path

    from xenintro.xen.xc import Xc


class Pages:
    """What `LiveMemory` needs of a libxc: pages full of their own number, mapped where their number says."""

    def __init__(self) -> None:
        self.mapped: list[int] = []
        self.copied: list[int] = []
        self.library = self

    def map_page(self, domid: int, gfn: int, protection: int) -> int:
        assert protection == mmap.PROT_READ
        self.mapped.append(gfn)
        return gfn

    def bytes_at(self, address: int, length: int) -> bytes:
        self.copied.append(address)
        return bytes([address & 0xFF]) * length

    def unmap_page(self, address: int) -> None:
        self.mapped.remove(address)


@pytest.fixture
def pages() -> Pages:
    return Pages()


def guest_of(pages: object) -> Guest:
    xc: Xc = pages  # type: ignore[assignment]
    return Guest(1, "-", "tiny", 1, LiveMemory(xc, 1))


@settings(deadline=None)
@given(st.integers(0, 200 << 12), st.integers(1, 3 << 12))
def test_reads_cross_pages(gpa: int, size: int) -> None:
    pages = Pages()
    data = guest_of(pages).read(gpa, size)
    assert pages.mapped == []
    assert data == bytes((at >> 12) & 0xFF for at in range(gpa, gpa + size))


def test_a_page_is_kept_for_one_event(pages: Pages) -> None:
    guest = guest_of(pages)
    for now in (1, 2):
        guest.begin(now)
        assert guest.read(0x1010, 4) == guest.read(0x1020, 4)
    assert pages.copied == [1, 1]


def test_who_records_is_given_every_read(pages: Pages) -> None:
    guest = guest_of(pages)
    guest.begin(5)
    guest.read(0x1000, 1)
    guest.reads = []
    guest.read(0x2000, 2)
    assert guest.reads == [(5, 0x2000, b"\x02\x02")]


@pytest.mark.parametrize(("gpa", "size"), [(0, 0), (-1, 1), (0, MAX_READ + 1)])
def test_what_is_no_read(pages: Pages, gpa: int, size: int) -> None:
    with pytest.raises(GuestReadError):
        guest_of(pages).read(gpa, size)
    assert pages.copied == []


def test_without_a_guest_there_is_no_memory() -> None:
    with pytest.raises(GuestReadError, match="cannot read guest memory at 0x1000"):
        Guest(1, "-", "tiny", 1).read(0x1000, 4)


def test_a_policy_reads_the_simulated_guest(tmp_path: Path) -> None:
    """The instruction that writes the register lies at rip."""
    tmp_path.chmod(0o755)
    policy = tmp_path / "reads.py"
    policy.write_text(
        """
from time import time_ns
from xenintro.policy import on
from xenintro.response import Response
from xenintro.sim.program import LINEAR_BASE

class Policy:
    def setup(self, guest):
        assert len(guest.read(0, 4096)) == 4096
    @on("write_ctrlreg")
    def code(self, event, guest):
        code = guest.read(event.registers.rip - LINEAR_BASE, 2)
        assert 0 <= time_ns() - guest.now_ns < 10**9
        return Response(name=f"saw {code.hex()}")
    @on("mov_to_msr")
    def hole(self, event, guest):
        guest.read(0x4800 << 12, 1)
"""
    )
    with simulated_host() as host:
        outcome = host.run(
            *("watch", "-d", "1", "-e", "cr3,msr:lstar", "-p", str(policy), "--format", "jsonl", "-c", "8")
        )
        assert outcome.code == 0, outcome.stderr
        host.assert_untouched()
    writes = [record for record in outcome.records if record["reason"] == "write_ctrlreg"]
    assert {record["would"] for record in writes} == {"saw 0f22"}
    assert {record["rule"] for record in writes} == {"code"}
    assert "hole: cannot read guest memory at gfn 0x4800" in outcome.stderr
