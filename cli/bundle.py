"""A tar.gz for a bug report: what ``doctor`` found, versions, logs. No guest memory, no registers."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from xenintro.errors import UsageError
from xenintro.sinks import jsonl
from xenintro_cli.findings import report
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.probe import Finding

#: Files of the host, small and without secrets of a guest.
_FILES = (
    "/etc/os-release",
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/version",
    "/proc/xen/capabilities",
    "/sys/hypervisor/properties/capabilities",
    "/sys/hypervisor/properties/features",
    "/sys/hypervisor/type",
)
_COMMANDS = {
    "xl/info.txt": ("xl", "info"),
    "xl/list.txt": ("xl", "list"),
    "xl/dmesg.txt": ("xl", "dmesg"),
    "service/log.txt": ("journalctl", "--no-pager", "--lines=2000", "--unit=xenintro@*"),
}
#: Where the unit has its settings.
_SETTINGS = Path("/etc/xenintro")

_TIMEOUT = 10  # seconds, for each command
_MOST = 256 * 1024  # bytes of each file; of a longer one the end
_MOST_JOURNALS = 64

_README = """\
Made by: xenintro doctor --bundle

findings.txt, findings.jsonl   what doctor found
versions.txt                   of xenintro, Python and its packages, the kernel, Xen
host/                          facts of the control domain: kernel command line, CPUs, release
xl/                            xl info, xl list, the end of xl dmesg
service/                       settings of services (/etc/xenintro), the end of their log
journal/                       what monitors changed in domains and have not taken back yet

It holds names and numbers of domains, the kernel's command line, and what services have logged. It holds no
memory and no registers of a guest, but for what rules have said in that log.
"""


def write_bundle(path: Path, selection: str, findings: list[Finding], *, force: bool) -> list[str]:
    """Write the archive, readable by its owner only; returns what is in it, in short.

    Args:
        path: the file to make.
        selection: which Xen, see `xenintro.xen.locate.locate`.
        findings: what doctor found.
        force: replace a file that is there.

    Raises:
        UsageError: there is such a file, or it cannot be written.
    """
    contents = dict(sorted(_contents(selection, findings)))
    try:
        if force:
            path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_archive(contents, path.name.removesuffix(".tar.gz").removesuffix(".tgz")))
    except FileExistsError as error:
        raise UsageError(
            f"{path} exists",
            why="a bundle overwrites nothing by itself",
            hint="name another file, or add --force",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot write {path}", why=error.strerror or str(error), hint="name another file"
        ) from error
    return list(dict.fromkeys(name.partition("/")[0] for name in contents))


def _archive(contents: dict[str, bytes], folder: str) -> bytes:
    """The same contents give the same bytes: no times, no owners."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _contents(selection: str, findings: list[Finding]) -> Iterator[tuple[str, bytes]]:
    from xenintro.xen.probe import versions

    yield "README.txt", _README.encode()
    lines = report(findings, "domain", Style(color=False, utf8=False), None)
    yield "findings.txt", "".join(f"{line}\n" for line in lines).encode()
    records = ({"v": 1} | msgspec.structs.asdict(finding) for finding in findings)
    yield "findings.jsonl", b"".join(map(jsonl.line, records))
    rows = {"xenintro": metadata.version("xenintro")} | versions(selection)
    yield "versions.txt", "".join(f"{name:<12}  {version}\n" for name, version in rows.items()).encode()
    for path in map(Path, _FILES):
        if (data := _end_of(path)) is not None:
            yield "host" + str(path), data
    for name, command in _COMMANDS.items():
        yield name, _output(command)
    yield from settings_of_services(_SETTINGS)
    yield from _journals()


def settings_of_services(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Files of settings, and those that change them, each with its name in the archive."""
    for path in sorted([*directory.glob("*.toml"), *directory.glob("*.toml.d/*.toml")]):
        if (data := _end_of(path)) is not None:
            yield f"service/{path.relative_to(directory)}", data


def _journals() -> Iterator[tuple[str, bytes]]:
    from xenintro.xen.statedir import state_files

    for path in state_files()[:_MOST_JOURNALS]:
        if (data := _end_of(path)) is not None:
            yield f"journal/{path.name}", data


def _end_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()[-_MOST:]
    except OSError:
        return None


def _output(command: tuple[str, ...]) -> bytes:
    """What a command prints, or why it prints nothing."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)}: {error}\n".encode()
    return done.stdout[-_MOST:]
