"""Which Xen to talk to: its release and where the libxenctrl of exactly that release is."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import NotSupportedError, NoXenError, UsageError
from xenintro.xen.signatures import OLDEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.signatures import Release

_LIBXENCTRL = re.compile(r"libxenctrl\.so\.(\d+)\.(\d+)")
#: ldconfig -p; Xen has no other 64-bit hosts, and no 32-bit ones are worth a mistake.
_LDCONFIG = re.compile(r"^\s+(libxenctrl\.so\.\d+\.\d+) \(libc6,(?:x86-64|AArch64)\b.*=> (.+)$", re.MULTILINE)

#: Where Xen's tools keep their libraries when the dynamic linker is not told (Debian's multiarch
#: layout, and a release installed beside another one).
_DIRECTORIES = (
    *(f"usr/lib/{platform.machine()}-linux-gnu", "usr/lib64"),
    *("usr/lib/xen-*/lib", "usr/lib/xen-*/lib/*", "usr/local/lib", "opt/xen/lib"),
)

_WITHOUT_XEN = "try: xenintro demo (a simulated guest)"


class Location(NamedTuple):
    """The libraries of one release.

    Attributes:
        release: of libxenctrl, for instance ``(4, 17)``.
        library: path of libxenctrl; its companions are looked for beside it first.
    """

    release: Release
    library: Path


def locate(selection: str = "auto", root: Path = Path("/")) -> Location:
    """Find the libraries to load.

    Args:
        selection: ``auto`` for those of the running hypervisor, else a directory that holds one
            ``libxenctrl.so.4.N``, with or without its companions.
        root: where the host's files are; anything but / is for tests.

    Raises:
        NoXenError: auto, and this is not the control domain of a Xen host.
        NotSupportedError: the release is too old, or its libxenctrl is not installed.
        UsageError: the directory does not hold exactly one libxenctrl.
    """
    found = _running(root) if selection == "auto" else _in_directory(Path(selection).absolute())
    if found.release < OLDEST:
        raise NotSupportedError(
            f"Xen {_text(found.release)} is too old",
            why=f"the monitor calls of libxc exist from {_text(OLDEST)} on",
            hint="captures and ring pages of older releases can be read: xenintro decode --help",
        )
    return found


def running_release(root: Path = Path("/")) -> Release | None:
    """The release of the hypervisor below this kernel, or None where there is none."""
    version = root / "sys/hypervisor/version"
    try:
        if (root / "sys/hypervisor/type").read_text().strip() != "xen":
            return None
        return int((version / "major").read_text()), int((version / "minor").read_text())
    except (OSError, ValueError):
        return None


def is_control_domain(root: Path = Path("/")) -> bool:
    """Whether this kernel runs as dom0, from xenfs or (Linux 5.19 and later) from sysfs."""
    try:
        return "control_d" in (root / "proc/xen/capabilities").read_text()
    except OSError:
        pass  # xenfs is not mounted: sysfs tells
    try:
        return (root / "sys/hypervisor/start_flags/initdomain").read_text().strip() == "1"
    except OSError:
        return False


def _running(root: Path) -> Location:
    release = running_release(root)
    if release is None:
        raise NoXenError(
            "this is not a Xen host",
            why="no /sys/hypervisor/version of type xen: there is no Xen below this kernel",
            hint=_WITHOUT_XEN,
        )
    if not is_control_domain(root):
        raise NoXenError(
            "this is a guest of a Xen host, not its control domain",
            why="/proc/xen/capabilities does not say control_d (or xenfs is not mounted)",
            hint="run it in dom0; there, if xenfs is missing: mount -t xenfs xenfs /proc/xen",
        )
    installed = dict(_installed(root))
    if release in installed:
        return Location(release, installed[release])
    name = f"libxenctrl.so.{_text(release)}"
    others = ", ".join(f"{_text(other)} ({path})" for other, path in sorted(installed.items()))
    raise NotSupportedError(
        f"{name} is not installed",
        why=f"Xen {_text(release)} is running, "
        + (f"but the only libxenctrl here is that of {others}" if others else "its tools are not"),
        hint=f"install the tools of this release (Debian: xen-utils-{_text(release)})"
        "      or name their directory: --xen DIR",
    )


def _in_directory(directory: Path) -> Location:
    if not directory.is_dir():
        raise UsageError(
            f"no such directory: {directory}",
            why="--xen takes auto, sim or the directory of a libxenctrl.so.4.N",
            hint="for instance --xen /usr/lib/xen-4.17/lib",
        )
    found = dict(_scan(directory))
    if len(found) != 1:
        names = ", ".join(sorted(path.name for path in found.values())) or "none"
        raise UsageError(
            f"not exactly one libxenctrl.so.4.N in {directory}",
            why=f"found: {names}; the name says which release's calls to use",
            hint="name a directory that holds the libraries of one release",
        )
    return Location(*found.popitem())


def _installed(root: Path) -> Iterator[tuple[Release, Path]]:
    """Every libxenctrl of this host; the dynamic linker's own choice comes last, so it wins."""
    for pattern in _DIRECTORIES:
        for directory in root.glob(pattern):
            yield from _scan(directory)
    for name, path in _LDCONFIG.findall(_ldconfig(root / "etc/ld.so.cache")):
        if (release := _release_of(name)) is not None:
            yield release, Path(path)


def _scan(directory: Path) -> Iterator[tuple[Release, Path]]:
    for path in directory.glob("libxenctrl.so.*"):
        if (release := _release_of(path.name)) is not None:
            yield release, path


def _release_of(name: str) -> Release | None:
    match = _LIBXENCTRL.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def _ldconfig(cache: Path) -> str:
    """What the dynamic linker's cache lists; nothing where there is no ldconfig (musl)."""
    try:
        return subprocess.run(
            ["/sbin/ldconfig", "-p", "-C", cache], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return ""


def _text(release: Release) -> str:
    return f"{release[0]}.{release[1]}"
