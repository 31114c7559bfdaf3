"""What the host itself must have: checked first, installed if that is allowed, else named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab import cache

#: A file or a command in the path, and the Debian packages that bring it.
_ALWAYS = {"cpio": ["cpio"], "as": ["binutils"], "dpkg-deb": ["dpkg"], "setpriv": ["util-linux"]}
_BY_CPU = {
    "svm": {"qemu-system-x86_64": ["qemu-system-x86", "seabios"]},
    "vmx": {
        "g++": ["g++"],
        "make": ["make"],
        "xz": ["xz-utils"],
        "grub-mkrescue": ["grub-common"],
        "/usr/lib/grub/i386-pc/multiboot.mod": ["grub-pc-bin"],
        "xorriso": ["xorriso"],
        "mformat": ["mtools"],
    },
}


def _missing(cpu: str | None) -> list[str]:
    wanted = {**_ALWAYS, **(_BY_CPU[cpu] if cpu else {})}
    absent = [name for name in wanted if not (shutil.which(name) or Path(name).is_file())]
    return [package for name in absent for package in wanted[name]]


def provide(cpu: str | None = None) -> None:
    """Make sure that everything is there to build images, and to run the lab of a CPU."""
    if not (packages := _missing(cpu)):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise cache.LabUnavailable(f"missing on this host: {' '.join(packages)}")
    log = cache.root() / "host.log"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if not subprocess.run(["apt-cache", "show", packages[0]], capture_output=True, check=False).stdout:
        cache.run(["apt-get", "-q", "update"], log, env=env)
    install = "apt-get -q -y --no-install-recommends install".split()
    cache.run([*install, *packages], log, env=env)
