"""The two emulated machines: how to start one, and how to be sure that it is gone."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import bochs, cache
from tests.lab.image import Image

_LINUX = (
    "console=hvc0 nokaslr nomodeset mitigations=off tsc=reliable cryptomgr.notests rodata=off "
    "rcupdate.rcu_cpu_stall_suppress=1 random.trust_bootloader=on loglevel=4 panic=1 rdinit=/init"
)
_XEN = (
    "com1=115200,8n1 console=com1 loglvl=all guest_loglvl=all sched=credit dom0_max_vcpus=1 "
    "bootscrub=0 spec-ctrl=no xpti=no watchdog=no noreboot altp2m=1"
)

_GRUB = """\
set timeout=0
terminal_output console
menuentry xen {{
  multiboot /boot/xen {xen}
  module /boot/vmlinux {linux}
  module /boot/initramfs
}}
"""


@dataclass(frozen=True)
class Files:
    """What a machine boots, and the directory that is its own."""

    image: Image
    initramfs: Path  #: dom0's with the payload behind it
    run: Path
    cpus: int = 1  #: physical CPUs of the machine; Bochs has one whatever is asked


def _qemu(files: Files, console: int, agent: int) -> list[str | Path]:
    """AMD SVM with NPT by TCG.

    Without SMAP and SMEP because TCG reads the frame of a PV dom0's iret with supervisor rights,
    and without MONITOR because Xen's idle loop gets #GP from TCG's MWAIT.
    """
    xen = f"{_XEN} cpuidle=0 dom0_mem=512M,max:512M"
    return [
        "qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-smp", str(files.cpus), "-m", "1536",
        "-cpu", "EPYC,-smap,-smep,-monitor", "-display", "none", "-nodefaults", "-no-reboot",
        "-serial", f"tcp:127.0.0.1:{console}", "-serial", f"tcp:127.0.0.1:{agent}",
        "-kernel", files.image.xen, "-append", xen,
        # Commas part the modules here, and the first space a module from its command line.
        "-initrd", f"{files.image.kernel} {_LINUX},{files.initramfs}",
    ]  # fmt: skip


def _bochs(files: Files, console: int, agent: int) -> list[str | Path]:
    """Intel VMX: everything that Xen can report on x86."""
    tree = files.run / "iso"
    (tree / "boot/grub").mkdir(parents=True)
    boots = {"xen": files.image.xen, "vmlinux": files.image.kernel, "initramfs": files.initramfs}
    for name, path in boots.items():
        shutil.copy(path, tree / "boot" / name)
    # No vPMU and no real mode: neither is needed, both cost boot time.
    xen = f"{_XEN} dom0_mem=384M,max:384M no-real-mode edd=off vpmu=off"
    (tree / "boot/grub/grub.cfg").write_text(_GRUB.format(xen=xen, linux=_LINUX))
    iso, log = files.run / "lab.iso", files.run / "build.log"
    modules = "iso9660 biosdisk multiboot normal"
    cache.run(
        ["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", iso, tree,
         f"--install-modules={modules}", f"--modules={modules}",
         "--locales=", "--fonts=", "--themes=", "--compress=no"], log,
    )  # fmt: skip
    rc = files.run / "bochsrc"
    rc.write_text(bochs.config(iso, files.run / "bochs.log", 896, console, agent))
    return [bochs.program(), "-q", "-f", rc]


@dataclass(frozen=True)
class Model:
    """One emulated CPU of the lab."""

    command: Callable[[Files, int, int], list[str | Path]]
    boot_seconds: int  #: deadline for dom0's agent on a busy two-core host, not an expectation


MODELS = {"vmx": Model(_bochs, 600), "svm": Model(_qemu, 300)}


class Machine:
    """A running emulator and its two serial lines."""

    def __init__(self, model: Model, files: Files) -> None:
        self.lines: list[socket.socket] = []
        with contextlib.ExitStack() as opened:
            doors = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "12"]
            command = model.command(files, *(door.getsockname()[1] for door in doors))
            with (files.run / "emulator.log").open("wb") as talk:
                # The kernel ends the emulator if this process dies without closing it.
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "--", *command], cwd=files.run,
                    stdin=subprocess.DEVNULL, stdout=talk, stderr=talk, start_new_session=True,
                )  # fmt: skip
            atexit.register(self.close)
            for door in doors:
                self.lines.append(self._accept(door, files.run))

    @property
    def console(self) -> socket.socket:
        """com1: what Xen, its guests and dom0's console print, and dom0's shell."""
        return self.lines[0]

    @property
    def agent(self) -> socket.socket:
        """com2: the agent in dom0."""
        return self.lines[1]

    def _accept(self, door: socket.socket, run: Path) -> socket.socket:
        """The emulator's end of a serial line, unless it died before it called."""
        door.settimeout(0.5)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(TimeoutError):
                return door.accept()[0]
        self.close()
        talk = (run / "emulator.log").read_text(errors="replace")[-1000:]
        raise RuntimeError(f"the emulator did not start: {talk}")

    def alive(self) -> bool:
        """Whether the emulator runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill the emulator and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for line in self.lines:
            line.close()
        atexit.unregister(self.close)
