"""Bochs 3.0: the emulator whose CPU has VMX with EPT, unrestricted guests and the monitor trap flag."""

from __future__ import annotations

from pathlib import Path

from tests.lab import cache, debs

#: No timer signal for an IPS display (its handler can deadlock on the log) and none of the
#: SMP, debugger and plugin builds, which cost three quarters of the speed.
_CONFIGURE = """
--enable-cpu-level=6 --enable-x86-64 --enable-vmx=2 --enable-avx --enable-evex
--enable-repeat-speedups --enable-fast-function-calls --enable-handlers-chaining
--enable-all-optimizations --enable-pci --enable-fpu --enable-memtype
--enable-protection-keys --enable-cet
--disable-plugins --disable-debugger --disable-debugger-gui --disable-smp --disable-docbook
--disable-show-ips --disable-gameport --with-nogui --without-x11 --without-sdl2 --without-wx
--without-term
""".split()

_FLAGS = "-O3 -march=x86-64-v2 -fomit-frame-pointer -pipe"

#: Haswell: the newest model whose features Xen uses and Bochs 3.0 has without a patch (the later
#: ones advertise posted interrupts, whose descriptor Bochs wrongly wants page-aligned).
_MODEL = "corei7_haswell_4770"

_CONFIG = """\
memory: guest={memory}, host={memory}
cpu: model={model}, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
romimage: file={roms}/bochs/BIOS-bochs-latest
vgaromimage: file={roms}/vgabios/vgabios.stdvga.bin
vga: extension=vbe, update_freq=1
display_library: nogui
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={iso}, status=inserted
boot: cdrom
com1: enabled=1, mode=socket-client, dev=127.0.0.1:{console}
com2: enabled=1, mode=socket-client, dev=127.0.0.1:{agent}
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
clock: sync=none, time0=1767225600
"""


def _compile(into: Path) -> None:
    log, tree = into / "build.log", into / "source"
    tree.mkdir()
    tarball = debs.source("trixie", "bochs", "bochs_3.*.orig.tar.*")
    cache.run(["tar", "-x", "-C", tree, "--strip-components=1", "-f", tarball], log)
    flags = [f"CFLAGS={_FLAGS}", f"CXXFLAGS={_FLAGS}"]
    cache.run(["nice", "./configure", *flags, *_CONFIGURE], log, cwd=tree)
    cache.run(["nice", "make", "-j2"], log, cwd=tree)
    (tree / "bochs").rename(into / "bochs")
    cache.run(["strip", into / "bochs"], log)
    cache.run(["rm", "-rf", tree], log)


def _roms(into: Path) -> None:
    debs.unpack(debs.download("bookworm", ["bochsbios", "vgabios"]), into)


def program() -> Path:
    """The emulator, compiled once."""
    return cache.built("bochs", cache.fingerprint(_CONFIGURE, _FLAGS), _compile) / "bochs"


def config(iso: Path, log: Path, memory: int, console: int, agent: int) -> str:
    """A bochsrc with com1 and com2 on the two loopback ports."""
    roms = cache.built("bochs-roms", cache.fingerprint("bookworm"), _roms) / "usr/share"
    return _CONFIG.format(
        memory=memory, model=_MODEL, roms=roms, iso=iso, console=console, agent=agent, log=log
    )
