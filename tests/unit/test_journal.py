"""What is changed is on disk first; what a dead process left is read back; who lives is left alone."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from xenintro.errors import DomainBusyError, NoXenError, XenintroError
from xenintro.traps import parse_traps
from xenintro.xen.domains import DomainInfo
from xenintro.xen.entries import Entries
from xenintro.xen.journal import Journal
from xenintro.xen.statedir import holder, state_file
from xenintro.xen.undo import (
    UNDO,
    AccessRequired,
    Change,
    InViews,
    Pages,
    Steps,
    TrapOn,
    Views,
    WritesWait,
    change_of,
    undo,
)

if TYPE_CHECKING:
    from pathlib import Path

GUEST = DomainInfo(
    *(5, "00000000-0000-0000-0000-000000000005", True, True, False, False, False, None, 2, 1, 1, 0),
    name="tiny",
)
(CR3,) = parse_traps("cr3")
CHANGES: list[Change] = [
    Steps(2),
    TrapOn(CR3),
    Pages(0x10, 4),
    AccessRequired(),
    Views(),
    InViews(),
    WritesWait(),
]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XENINTRO_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def begun(info: DomainInfo = GUEST) -> Journal:
    return Journal.begin(info, "vm_event-7")


def died(*changes: Change) -> None:
    """What a process leaves that was killed."""
    journal = begun()
    journal.record(changes)
    journal.close()


def left(info: DomainInfo = GUEST) -> Entries | None:
    journal = Journal.left(info)
    if journal is None:
        return None
    journal.close()
    return journal.entries


def test_only_root_may_look(directory: Path) -> None:
    begun().close()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert state_file(GUEST.uuid).stat().st_mode & 0o777 == 0o600


def test_every_kind_of_change_is_read_back_as_it_was() -> None:
    died(*CHANGES)
    found = left()
    assert found is not None
    assert found.changes == CHANGES
    assert {type(change) for change in CHANGES} == set(UNDO)
    assert not found.unknown


def test_it_is_json_lines_with_what_undoes_each_change() -> None:
    died(Pages(0x10, 4))
    lines = [json.loads(line) for line in state_file(GUEST.uuid).read_text().splitlines()]
    assert lines[0] == {"pauses": 0, "maybe": 0}
    assert (lines[1]["v"], lines[1]["domid"], lines[1]["pid"]) == (1, 5, os.getpid())
    assert lines[2] == {"undo": "mem_access", "first_gfn": 16, "count": 4, "access": "rwx"}


def test_it_is_on_disk_before_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = begun()
    path = state_file(GUEST.uuid)
    synced: list[bytes] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(path.read_bytes()), fsync(fd)))
    journal.record(CHANGES)
    assert len(synced) == 1, "one for all of them"
    assert Entries.parse(synced[0]).changes == CHANGES


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_torn_last_line_was_not_done_yet(cut: int) -> None:
    died(Steps(2), Pages(0x10, 4))
    path = state_file(GUEST.uuid)
    whole = path.read_bytes()
    assert whole.rstrip(b"\n").rfind(b"\n") < len(whole) - 60
    path.write_bytes(whole[:-cut])
    journal = Journal.left(GUEST)
    assert journal is not None
    assert journal.entries.changes == [Steps(2)]
    journal.record([Views()])
    journal.close()
    assert Entries.parse(path.read_bytes()).changes == [Steps(2), Views()]


@pytest.mark.parametrize("size", [0, 5, 30])
def test_whoever_died_in_the_header_had_touched_nothing(size: int) -> None:
    died()
    path = state_file(GUEST.uuid)
    path.write_bytes(path.read_bytes()[:size])
    assert left() is None
    begun().remove()


def test_what_a_newer_version_wrote_is_not_overlooked() -> None:
    died(Steps(2))
    with state_file(GUEST.uuid).open("ab") as file:
        file.write(b'{"undo":"time_travel"}\n')
    found = left()
    assert found is not None
    assert found.unknown
    assert found.changes == [Steps(2)]


def test_removed_is_gone(directory: Path) -> None:
    begun().remove()
    assert list(directory.iterdir()) == []
    assert left() is None


def test_one_at_a_time() -> None:
    journal = begun()
    for another in (begun, left):
        with pytest.raises(DomainBusyError, match="is busy") as caught:
            another()
        assert str(os.getpid()) in caught.value.why
    journal.remove()
    begun().remove()


def test_a_lock_is_its_process_s_alone() -> None:
    """Neither a forked child nor a program that is started keeps it."""
    journal = begun()
    script = "from xenintro.xen.statedir import *; print(holder(state_file(%r)))" % GUEST.uuid  # noqa: UP031
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    forked = os.fork()
    if forked == 0:
        signal.pause()
    try:
        seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert int(seen.stdout) == os.getpid()
        journal.close()
        assert holder(state_file(GUEST.uuid)) is None
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        child.communicate(b"\n")


def test_the_dead_leave_no_lock() -> None:
    script = (
        "import os, sys; from tests.unit.test_journal import begun, CHANGES;"
        "begun().record(CHANGES); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with pytest.raises(DomainBusyError, match="was not given back") as caught:
        begun()
    assert "rescue --domid 5" in caught.value.hint
    found = left()
    assert found is not None
    assert found.changes == CHANGES


@pytest.mark.parametrize("change", [{"domid": 6}, {"uuid": "00000000-0000-0000-0000-000000000006"}])
def test_a_past_life_is_forgotten(change: dict[str, object]) -> None:
    """A guest that was rebooted has its UUID, and another number."""
    died(*CHANGES)
    now = msgspec.structs.replace(GUEST, **change)
    assert left(now) is None
    begun(now).remove()


def test_another_boot_of_the_host_is_a_past_life(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    died(*CHANGES)
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr("xenintro.xen.entries._BOOT_ID", boot)
    assert left() is None


class TestPauses:
    """How many pauses a dead process left."""

    @pytest.mark.parametrize(("others", "pauses"), [(False, 2), (True, 1)])
    def test_killed_while_pausing(self, others: bool, pauses: int) -> None:
        info = msgspec.structs.replace(GUEST, paused=others)
        journal = begun(info)
        with journal.counting(1):
            pass
        with journal.counting(1):
            as_it_was = state_file(GUEST.uuid).read_bytes()
        journal.close()
        state_file(GUEST.uuid).write_bytes(as_it_was)
        found = left(info)
        assert found is not None
        assert found.pauses == pauses

    def test_what_was_given_back_does_not_count(self) -> None:
        journal = begun()
        for _ in range(255):
            with journal.counting(1):
                pass
        for _ in range(254):
            with journal.counting(-1):
                pass
        journal.close()
        found = left()
        assert found is not None
        assert found.pauses == 1

    def test_a_call_that_fails_changes_nothing(self) -> None:
        journal = begun()
        with pytest.raises(KeyError), journal.counting(1):
            raise KeyError
        assert (journal.entries.pauses, journal.entries.maybe) == (0, 0)
        with journal.counting(1):
            pass
        with pytest.raises(KeyError), journal.counting(-1):
            raise KeyError
        assert (journal.entries.pauses, journal.entries.maybe) == (1, 0)
        journal.close()


def test_a_directory_that_cannot_be_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.write_text("a file")
    with pytest.raises(XenintroError, match="cannot keep a journal") as caught:
        begun()
    assert len(caught.value.lines()) == 3

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(NoXenError):
        begun()


def test_a_full_disk_is_an_error_before_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = begun()
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:10], at))
    with pytest.raises(XenintroError, match="cannot keep a journal"):
        journal.record(CHANGES)
    monkeypatch.undo()
    assert journal.entries.changes == []
    journal.close()


class TestNothingCanBeWritten:
    """The disk is full or broken, or its file system has become read-only."""

    @staticmethod
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def test_what_was_done_is_undone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        journal = begun()
        for _ in range(3):
            with journal.counting(1):
                pass
        journal.note_port(7)
        monkeypatch.setattr(os, "pwrite", self.full)
        called = 0
        for pauses in (1, 0, -1, -1):
            with journal.counting(pauses):
                called += 1
        assert (called, journal.entries.pauses, journal.entries.maybe) == (4, 2, 0)
        journal.note_port(8)

    def test_nothing_is_begun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        journal = begun()
        monkeypatch.setattr(os, "pwrite", self.full)
        with pytest.raises(XenintroError, match="cannot keep a journal"), journal.counting(1):
            raise AssertionError("the call must not be made")
        assert (journal.entries.pauses, journal.entries.maybe) == (0, 0)

    def test_a_rescue_does_without(self, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        directory.write_text("a file")
        journal = Journal.begin_anyhow(GUEST, "vm_event-7", CHANGES)
        journal.record_anyhow([Steps(3)])
        assert journal.entries.changes == [*CHANGES, Steps(3)]
        with journal.counting(1):
            pass
        assert journal.entries.pauses == 1
        journal.remove()
        assert caplog.text.count("no journal is kept") == 1, "it is said once"

    def test_what_was_left_is_read_all_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        died(*CHANGES)
        path, opened = state_file(GUEST.uuid), os.open

        def read_only(name: object, flags: int, *mode: int) -> int:
            if flags & (os.O_RDWR | os.O_WRONLY):
                raise OSError(errno.EROFS, "Read-only file system", name)
            return opened(name, flags, *mode)  # type: ignore[call-overload,no-any-return]

        monkeypatch.setattr(os, "open", read_only)
        journal = Journal.left(GUEST)
        assert journal is not None
        assert journal.entries.changes == CHANGES
        with journal.counting(1):
            pass
        journal.close()
        assert path.exists()

    def test_who_lives_is_seen_all_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        journal = begun()
        script = (
            "import os; opened = os.open\n"
            "def read_only(name, flags, *mode):\n"
            "    if flags & 3: raise OSError(30, 'Read-only file system')\n"
            "    return opened(name, flags, *mode)\n"
            "os.open = read_only\n"
            f"from xenintro.xen.statedir import *; print(holder(state_file({GUEST.uuid!r})))"
        )
        seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert int(seen.stdout) == os.getpid()
        journal.remove()


class Calls:
    """Stands in for libxc."""

    def __init__(self) -> None:
        self.made: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> object:
        def call(*args: object, **options: object) -> bool:
            self.made.append((name, *args, *options.values()))
            return True

        return call


def test_the_last_change_is_undone_first() -> None:
    xc = Calls()
    for step in undo(xc, 5, CHANGES, paused=False):  # type: ignore[arg-type]
        step()
    assert [call[0] for call in xc.made] == [
        *("altp2m_state", "switch_to_view", "set_altp2m_state"),
        *("set_access_required", "set_mem_access", "write_ctrlreg"),
    ]
    assert ("set_mem_access", 5, "rwx", 0x10, 4) in xc.made


def test_what_is_undone_while_the_domain_is_paused() -> None:
    xc = Calls()
    for step in undo(xc, 5, CHANGES, paused=True):  # type: ignore[arg-type]
        step()
    assert xc.made == [
        ("altp2m_state", 5),
        ("switch_to_view", 5, 0),
        ("debug_control", 5, 0, False),
        ("debug_control", 5, 1, False),
    ]


def test_what_a_trap_changes() -> None:
    pages, interrupts = parse_traps("mem:w@0x10-0x13,interrupt")
    assert change_of(pages) == Pages(0x10, 4)
    assert change_of(interrupts) is None
    assert change_of(CR3) == TrapOn(CR3)
