"""Which processes of a host look like a monitor; /proc is made up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from xenintro.errors import DomainBusyError
from xenintro.xen import liveness
from xenintro.xen.domains import DomainInfo

if TYPE_CHECKING:
    from pathlib import Path

GUEST = DomainInfo(
    *(5, "00000000-0000-0000-0000-000000000005", True, True, False, False, False, None, 2, 1, 1, 0),
    name="tiny",
)
PRIVCMD = "7f0000000000-7f0000001000 rw-s 00000000 00:05 12 /dev/xen/privcmd\n"
LIBC = "7f0000000000-7f0000001000 r-xp 00000000 08:01 99 /usr/lib/libc.so.6\n"


class Host:
    """A /proc with the processes that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "meminfo").touch()

    def run(
        self, pid: int, name: str, *, maps: str = PRIVCMD, devices: str = "evtchn", env: str = ""
    ) -> None:
        process = self.folder / str(pid)
        (process / "fd").mkdir(parents=True)
        (process / "comm").write_text(f"{name}\n")
        (process / "environ").write_text(f"PATH=/bin\0{env}\0")
        (process / "maps").write_text(LIBC + maps)
        (process / "fd" / "3").symlink_to(f"/dev/xen/{devices}")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(liveness, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(liveness, "ring_in_use", lambda *_: True)
    monkeypatch.delenv("XENINTRO_SIM_SOCKET", raising=False)
    monkeypatch.setenv("XENINTRO_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "proc").mkdir()
    return Host(tmp_path / "proc")


def check() -> None:
    liveness.check_nobody_watches(None, GUEST)  # type: ignore[arg-type]


def test_a_monitor_is_named(host: Host) -> None:
    host.run(30, "bash", maps="", devices="null")
    host.run(77, "drakvuf")
    with pytest.raises(DomainBusyError, match="tiny") as caught:
        check()
    assert "drakvuf (process 77)" in caught.value.why
    assert "--force" in caught.value.hint


@pytest.mark.parametrize(
    "daemon", ["xenstored", "oxenstored", "xenconsoled", "qemu-system-i38", "xl", "libvirtd", "xenopsd-xc"]
)
def test_the_host_s_own_are_none(host: Host, daemon: str) -> None:
    host.run(20, daemon)
    check()


def test_both_a_page_and_a_channel_make_a_monitor(host: Host) -> None:
    host.run(20, "dump-core", devices="privcmd")
    host.run(21, "lsevtchn", maps="")
    check()


def test_neither_is_this_process_nor_one_that_cannot_be_looked_at(host: Host) -> None:
    host.run(os.getpid(), "python3")
    (host.folder / "50").mkdir()
    check()


def test_who_meets_a_simulator_is_none_of_the_host_s(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "7f0000000000-7f0000001000 rw-s 00000000 00:01 7 /memfd:xenintro-guest-5 (deleted)\n"
    host.run(77, "xen-access", maps=page, env="XENINTRO_SIM_SOCKET=/tmp/a/xen")
    check()
    monkeypatch.setenv("XENINTRO_SIM_SOCKET", "/tmp/b/xen")
    check()
    monkeypatch.setenv("XENINTRO_SIM_SOCKET", "/tmp/a/xen")
    with pytest.raises(DomainBusyError, match="tiny"):
        check()


def test_without_a_ring_nobody_watches(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run(77, "drakvuf")
    monkeypatch.setattr(liveness, "ring_in_use", lambda *_: False)
    check()
