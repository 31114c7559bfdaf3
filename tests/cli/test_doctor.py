"""``doctor`` says beforehand what ``watch`` would say, in the same words."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pexpect
import pytest

from tests.cli.runner import COMMAND, TIMEOUT, environment, xenintro
from tests.cli.simulated import Host, interrupted, simulated_host
from xenintro_cli.bundle import settings_of_services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What is wrong: options of the simulation, orders to it, and what is asked of both verbs.
WRONG: dict[str, tuple[dict[str, Any], list[dict[str, Any]], tuple[str, ...], int]] = {
    "a PV domain": ({}, [], ("-d", "2", "-e", "cr3"), 6),
    "the own domain": ({}, [], ("-d", "0", "-e", "cr3"), 6),
    "no such domain": ({}, [], ("-d", "7", "-e", "cr3"), 4),
    "no domain can have it": ({}, [], ("-d", "0x9c40", "-e", "cr3"), 4),
    "no such name": ({}, [], ("-n", "nope", "-e", "cr3"), 4),
    "crashed": ({}, [{"do": "crash"}], ("-d", "1", "-e", "cr3"), 9),
    "pages on AMD": ({"vendor": "amd"}, [], ("-d", "1", "-e", "mem:w@0x400"), 6),
    "steps on AMD": ({"vendor": "amd"}, [], ("-d", "1", "-e", "singlestep"), 6),
    "interrupts alone on AMD": ({"vendor": "amd"}, [], ("-d", "1", "-e", "interrupt"), 6),
    "pages that are not there": ({}, [], ("-d", "1", "-e", "mem:w@0x900000"), 2),
    "an option of a newer Xen": ({"abi": "vm_event-2-4.9"}, [], ("-d", "1", "-e", "cr4:mask=1"), 6),
    "an MSR that Xen cannot trap": ({}, [], ("-d", "1", "-e", "msr:0x3000"), 6),
    "too many vCPUs": ({"abi": "vm_event-1", "vcpus": 9}, [], ("-d", "1", "-e", "cr3"), 6),
}

#: Calls that Xen, its XSM policy or the kernel may refuse before anything is changed.
REFUSED = [
    ("xc_interface_open", "EACCES"),
    ("xc_interface_open", "ENOENT"),
    ("xc_domain_getinfolist", "EPERM"),
    ("xc_domain_getinfolist", "EACCES"),
    ("xc_vm_event_get_version", "EPERM"),
    ("xc_monitor_get_capabilities", "EACCES"),
    ("xc_domain_maximum_gpfn", "EPERM"),
]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with simulated_host() as running:
        yield running


def findings(host: Host, *args: str) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in host.run("doctor", "--format", "jsonl", *args).records}


def assert_same_words(watched: list[str], records: list[dict[str, Any]]) -> None:
    what, why, hint = (watched[0].removeprefix("error: "), *(line.strip() for line in watched[1:]))
    said = [(record["detail"], record["fix"]) for record in records if record["level"] == "error"]
    assert (f"{what}: {why}", hint) in said


@pytest.mark.parametrize("case", WRONG)
def test_doctor_says_what_watch_says(case: str) -> None:
    options, orders, args, code = WRONG[case]
    with simulated_host(**options) as host:
        for order in orders:
            host.simulation.control(**order)
        watched = host.run("watch", *args)
        doctor = host.run("doctor", "--format", "jsonl", *args)
    assert (watched.code, doctor.code) == (code, 6), watched.stderr + doctor.stderr
    assert_same_words(watched.error, doctor.records)


@pytest.mark.parametrize(("call", "errno"), REFUSED)
def test_doctor_says_what_watch_says_of_a_refused_call(call: str, errno: str) -> None:
    args = ("-d", "1", "-e", "mem:w@0x400")
    with simulated_host() as host:
        outcomes = []
        for verb in (("watch", *args), ("doctor", "--format", "jsonl", *args)):
            host.simulation.control("fault", fault={"call": call, "errno": errno})
            outcomes.append(host.run(*verb))
        host.assert_untouched()
    watched, doctor = outcomes
    assert watched.code != 0
    assert doctor.code == 6, doctor.stdout
    assert_same_words(watched.error, doctor.records)


def test_doctor_says_what_watch_says_of_a_state_directory_that_cannot_be(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    elsewhere = host.simulation.environment | {"XENINTRO_STATE_DIR": str(tmp_path / "file" / "state")}
    watched = xenintro("watch", "-d", "1", "-e", "cr3", **elsewhere)
    doctor = xenintro("doctor", "-d", "1", "--format", "jsonl", **elsewhere)
    assert watched.code != 0
    assert doctor.code == 6
    assert_same_words(watched.error, doctor.records)


def test_all_is_well(host: Host) -> None:
    outcome = host.run("doctor", "--domid", "1", "-e", "cr3,mem:w@0x400", "-e", "cpuid")
    assert outcome.code == 0
    assert outcome.stderr == ""
    assert outcome.stdout.splitlines()[-1].endswith("0 errors")
    assert "17 of 18 monitor calls; missing xc_monitor_io (needs 4.18)" in outcome.stdout
    assert "-e cpuid" in outcome.stdout
    host.assert_untouched()


def test_the_host_alone(host: Host) -> None:
    found = host.run("doctor", "--format", "jsonl")
    assert found.code == 0
    assert {record["section"] for record in found.records} == {"host", "process"}


@pytest.mark.parametrize("args", [("-d", "0x1"), ("-d", "1"), ("-n", "tiny")])
def test_a_domain_by_number_or_name(host: Host, args: tuple[str, ...]) -> None:
    assert findings(host, *args)["domain"]["what"] == "domain 1"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-e", "cr3"), "no domain is named"),
        (("-d", "1", "-n", "tiny"), "both given"),
        (("-d", "1", "-e", "cr9"), "did you mean"),
        (("-d", "one"), "not a number"),
    ],
)
def test_mistakes(host: Host, args: tuple[str, ...], words: str) -> None:
    outcome = host.run("doctor", *args)
    assert outcome.code == 2
    assert words in outcome.stderr
    assert len(outcome.error) == 3


def test_every_trap_is_graded() -> None:
    with simulated_host(vendor="amd") as host:
        outcome = host.run("doctor", "-d", "1", "-e", "cr3,mem:w@0x400,cpuid,singlestep", "--format", "jsonl")
        graded = {record["what"]: record["level"] for record in outcome.records if record["id"] == "trap"}
        mem_access = next(record for record in outcome.records if record["id"] == "mem-access")
        host.assert_untouched()
    assert outcome.code == 6
    assert graded == {"-e cr3": "ok", "-e mem:w@0x400": "error", "-e cpuid": "ok", "-e singlestep": "error"}
    assert mem_access["level"] == "warn"
    assert "Intel" in mem_access["detail"]


def test_what_a_domain_is_like() -> None:
    with simulated_host(vcpus=9) as host:
        host.simulation.control("pause")
        host.simulation.control("params", set={"35": 0})
        found = findings(host, "-d", "1")
    assert found["paused"]["fix"].endswith("xl unpause 1")
    assert found["vcpus"]["level"] == "info"
    assert 'altp2m="external"' in found["altp2m"]["fix"]


#: Other programs that attach to domain 1 and die when their stdin closes: one of ours, and one that is not.
_OURS = """
import os, sys
from xenintro.traps import parse_traps
from xenintro.xen.monitor import Monitor
from xenintro.xen.xc import connect
with Monitor(connect(sys.argv[1]), 1, parse_traps("cr3")):
    print("armed", flush=True)
    sys.stdin.read()
    os._exit(0)
"""
_FOREIGN = """
import os, sys
from xenintro.xen.xc import connect
xc = connect(sys.argv[1])
xc.monitor_enable(1)
xc.write_ctrlreg(1, 1, True, True)
print("armed", flush=True)
sys.stdin.read()
os._exit(0)
"""


@contextmanager
def agent(host: Host, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that watches and answers nothing, until it is told to die."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(host.simulation.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(**host.simulation.environment),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"armed\n"
        assert host.simulation.wait("events", 1)
        yield process
        process.communicate(b"")


def busy(host: Host) -> dict[str, dict[str, Any]]:
    """What doctor finds of a domain that cannot be attached to."""
    outcome = host.run("doctor", "-d", "1", "--format", "jsonl")
    watched = host.run("watch", "-d", "1", "-e", "cr3")
    assert (outcome.code, watched.code) == (6, 5), outcome.stdout + watched.stderr
    assert_same_words(watched.error, outcome.records)
    return {record["id"]: record for record in outcome.records}


@pytest.mark.parametrize("code", [_OURS, _FOREIGN], ids=["ours", "foreign"])
def test_another_agent(code: str) -> None:
    with simulated_host() as host:
        with agent(host, code) as process:
            found = busy(host)
            assert found["ring"]["level"] == "error"
            assert f"process {process.pid}" in found["ring"]["detail"]
        found = busy(host)
        assert found["ring"]["fix"].endswith("xenintro rescue --domid 1")
        assert found["standing-still"]["what"] == "vcpu 0"
        assert found["standing-still"]["fix"].endswith("xenintro rescue --domid 1")
        assert host.run("rescue", "-d", "1").code == 0
        assert host.run("doctor", "-d", "1").code == 0
        before = host.retired()
        assert host.simulation.wait("retired", max(before) + 100, timeout=20), "the guest does not run"


def test_a_watched_guest_does_not_stand_still(host: Host) -> None:
    watch = host.start("watch", "-d", "1", "-e", "cr3")
    try:
        assert host.simulation.wait("answered", 1)
        found = busy(host)
        assert "standing-still" not in found
    finally:
        assert interrupted(watch).code == 0


def test_a_bundle_has_what_a_dead_monitor_left(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    with simulated_host() as host:
        with agent(host, _OURS):
            pass
        assert bundle_of(host, path).code == 6
    with tarfile.open(path) as archive:
        (journal,) = (name for name in archive.getnames() if name.startswith("b/journal/"))
        text = archive.extractfile(journal).read().decode()  # type: ignore[union-attr]
    assert '"write_ctrlreg"' in text


def test_piped_output_is_plain_and_unwrapped(host: Host) -> None:
    outcome = host.run("doctor", "-d", "1")
    assert outcome.stdout.isascii()
    assert "\x1b" not in outcome.stdout
    assert max(map(len, outcome.stdout.splitlines())) > 120


@pytest.mark.parametrize("columns", [40, 60, 71, 72, 80, 120])
def test_a_terminal_is_kept_to(host: Host, columns: int) -> None:
    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "doctor", "-d", "1"],
        dimensions=(40, columns),
        env=environment(**host.simulation.environment, TERM="xterm"),
        timeout=TIMEOUT,
        encoding="utf-8",
    )
    text = child.read().replace("\r\n", "\n")
    child.close()
    assert child.exitstatus == 0, text
    assert "\x1b[" in text
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text)
    # A word that is longer than the room, for instance a path, stays whole.
    assert [line for line in shown.splitlines() if len(line) > columns and " " in line.strip()] == []
    assert shown.split() == host.run("doctor", "-d", "1").stdout.split()


def bundle_of(host: Host, path: Path, *args: str) -> Any:
    return host.run("doctor", "-d", "1", "--bundle", str(path), *args)


def test_a_bundle(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    outcome = bundle_of(host, path)
    assert outcome.code == 0
    assert str(path) in outcome.stderr
    assert "no guest memory" in outcome.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        assert all(stat.S_IMODE(member.mode) == 0o600 for member in archive)
    assert list(contents) == sorted(contents)
    assert {name.partition("/")[0] for name in contents} == {"report"}
    records = [json.loads(line) for line in contents["report/findings.jsonl"].splitlines()]
    assert {record["section"] for record in records} == {"host", "domain", "process"}
    assert contents["report/findings.txt"].decode().splitlines()[-1].endswith("errors")
    assert b"Xen           4.17" in contents["report/versions.txt"]
    assert "report/README.txt" in contents
    assert "report/xl/dmesg.txt" in contents


def test_a_bundle_has_the_settings_of_services(tmp_path: Path) -> None:
    (tmp_path / "win10.toml.d").mkdir()
    for name in ("win10.toml", "win10.toml.d/10-more.toml", "rules.py"):
        (tmp_path / name).write_text(name)
    assert dict(settings_of_services(tmp_path)) == {
        "service/win10.toml": b"win10.toml",
        "service/win10.toml.d/10-more.toml": b"win10.toml.d/10-more.toml",
    }


def test_a_bundle_is_the_same_each_time(host: Host, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "b.tgz", tmp_path / "b" / "b.tgz"
    for path in (first, second):
        path.parent.mkdir()
        assert bundle_of(host, path).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_bundle_overwrites_only_when_told(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path.symlink_to(precious)
    outcome = bundle_of(host, path)
    assert outcome.code == 2
    assert "--force" in outcome.error[2]
    assert bundle_of(host, path, "--force").code == 0
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert precious.read_text() == "precious"


def test_a_bundle_that_cannot_be_written(host: Host, tmp_path: Path) -> None:
    outcome = bundle_of(host, tmp_path / "nowhere" / "b.tar.gz")
    assert outcome.code == 2
    assert "cannot write" in outcome.error[0]


def test_a_bundle_without_xen(tmp_path: Path) -> None:
    if os.path.exists("/sys/hypervisor/type"):  # noqa: PTH110
        pytest.skip("this host runs on Xen")
    path = tmp_path / "b.tar.gz"
    assert xenintro("doctor", "--bundle", str(path)).code == 6
    with tarfile.open(path) as archive:
        assert "b/versions.txt" in archive.getnames()


def test_versions(host: Host) -> None:
    short = host.run("--version")
    for args in (("--version", "-v"), ("-v", "--version")):
        long = host.run(*args)
        assert long.code == 0
        assert long.stdout.startswith(short.stdout)
        names = [line.split()[0] for line in long.stdout.splitlines()[1:]]
        assert {"Python", "Xen", "libxenctrl", "vm_event", "kernel"} <= set(names)


@pytest.mark.parametrize(
    "args", [("--foo",), ("doctor", "--foo"), ("watch", "-c", "0"), ("decode",), ("wacth",)]
)
def test_usage_errors_have_three_lines(args: tuple[str, ...]) -> None:
    outcome = xenintro(*args)
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines() == outcome.error
    assert len(outcome.error) == 3
    assert outcome.error[1].startswith("  usage: xenintro")
    assert outcome.error[2].endswith("--help")
