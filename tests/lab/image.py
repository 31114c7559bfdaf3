"""dom0: Xen, a kernel and a small initramfs, all from Debian's packages."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache, debs, elf
from tests.lab.releases import Release

HERE = Path(__file__).parent
_LIB = "usr/lib/x86_64-linux-gnu"

_TOOLS = "xl xenstored xenconsoled xen-init-dom0 xen-access xen-hvmctx".split()
_STORE = "xenstore-read xenstore-write xenstore-ls xenstore-list".split()
_PROGRAMS = "bin/busybox bin/python3.11 sbin/ldconfig".split()
_MODULES = "xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xenfs".split()

_SCRIPTS = {"init": "init", "agent": "usr/sbin/lab-agent", "lab": "usr/bin/lab"}
_OPENED = "libxen*.so.* libgcc_s.so.1 libpthread.so.0 libdl.so.2 librt.so.1 libm.so.6".split()

#: Parts of Python's library that nothing in dom0 imports; each second of unpacking counts in Bochs.
_UNUSED = """
__pycache__ config-3.11-x86_64-linux-gnu ctypes/test distutils ensurepip idlelib lib2to3 pydoc_data
sqlite3 test tkinter turtle.py turtledemo unittest venv wsgiref xmlrpc
""".split()
_UNUSED_MODULES = """
_codecs_* _test* _sqlite3* _crypt* _curses* _dbm* _gdbm* _tkinter* audioop* nis* ossaudiodev*
""".split()


@dataclass(frozen=True)
class Image:
    """The three files that boot a dom0."""

    xen: Path
    kernel: Path
    initramfs: Path
    root: Path  #: the unpacked packages, for those who want to run dom0's Python on the host


def _packages(release: Release) -> dict[str, list[str]]:
    """What to unpack from which suite, with all it needs: Xen's tools, and Python for ours."""
    wanted = {"bookworm": ["busybox-static", "libc-bin", "python3-minimal", "libpython3.11-stdlib"]}
    xen = [f"xen-hypervisor-{release.version}-amd64", f"xen-utils-{release.version}"]
    wanted[release.suite] = [*wanted.get(release.suite, []), *xen, "xenstore-utils"]
    return {suite: wanted[suite] for suite in release.layers}


def _kernel(into: Path) -> None:
    """Debian's kernel, decompressed here because an emulator would take seconds over it."""
    package = debs.depends("bookworm", "linux-image-amd64", "linux-image-6")
    debs.unpack([deb for deb in debs.download("bookworm", [package]) if package in deb.name], into)
    (image,) = (into / "boot").glob("vmlinuz-*")
    packed = image.read_bytes()
    (into / "vmlinux").write_bytes(lzma.LZMADecompressor().decompress(packed[packed.index(b"\xfd7zXZ\0") :]))
    (into / "modules").mkdir()
    for name in _MODULES:
        (module,) = (into / "usr/lib/modules").rglob(f"{name}.ko")
        shutil.copy(module, into / "modules")
    shutil.rmtree(into / "usr")


def _python(root: Path, into: Path) -> list[Path]:
    """Python's library as bytecode; returns its extension modules."""
    target = into / "usr/lib/python3.11"
    shutil.copytree(
        root / "usr/lib/python3.11",
        target,
        symlinks=True,
        ignore=shutil.ignore_patterns(*_UNUSED, *_UNUSED_MODULES),
    )
    compile_bytecode(root, target, sourceless=True)
    return list(target.rglob("*.so"))


def compile_bytecode(root: Path, tree: Path, *, sourceless: bool = False) -> None:
    """Compile a tree with dom0's own Python, run on the host by dom0's own loader."""
    python: list[str | Path] = [
        root / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", root / _LIB,
        root / "usr/bin/python3.11", "-I", "-m", "compileall", "-q", "-s", tree,
        # A kernel may not keep the times of an initramfs, so bytecode is not to be compared with them.
        "--invalidation-mode", "unchecked-hash",
    ]  # fmt: skip
    subprocess.run([*python, *(["-b"] if sourceless else []), tree], check=True)
    if sourceless:
        for source in tree.rglob("*.py"):
            source.unlink()


def _copy(root: Path, into: Path, path: Path) -> None:
    """Copy a file, or a symbolic link and what it points to."""
    (into / path).parent.mkdir(parents=True, exist_ok=True)
    if (into / path).is_symlink() or (into / path).exists():
        return
    shutil.copy(root / path, into / path, follow_symlinks=False)
    if (into / path).is_symlink():
        target = os.path.normpath(Path("/", path.parent, (into / path).readlink()))
        _copy(root, into, Path(target).relative_to("/"))


def _populate(release: Release, root: Path, kernel: Path, into: Path) -> None:
    """Copy what dom0 runs, and nothing else."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (into / "usr" / name).mkdir(parents=True)
        (into / name).symlink_to(f"usr/{name}")
    for name in "dev proc sys run tmp root etc/xen var/lib/xen var/lib/xenstored var/log/xen".split():
        (into / name).mkdir(parents=True)
    (into / "var/run").symlink_to("../run")
    (into / "etc/xen/xl.conf").touch()
    bindir = f"usr/lib/xen-{release.version}/bin"
    tools = [Path(bindir, name) for name in _TOOLS if (root / bindir / name).exists()]
    stores = [Path("usr/bin", name) for name in _STORE]
    programs = [*tools, *stores, *(Path("usr", name) for name in _PROGRAMS)]
    extensions = _python(root, into)
    # Opened at run time, or wanted by wheels only: no program's headers name these.
    opened = [path for name in _OPENED for path in root.glob(f"{_LIB}/{name}")]
    needed = [root / program for program in programs] + extensions + opened
    loader = Path("usr/lib64/ld-linux-x86-64.so.2")
    libraries = {path.relative_to(root) for path in (elf.closure(root, needed) | set(opened))}
    for path in {*programs, *libraries, loader}:
        _copy(root, into, path)
    (into / "usr/bin/python3").symlink_to("python3.11")
    (into / "usr/bin/sh").symlink_to("busybox")
    (into / "usr/lib/xen").symlink_to(f"xen-{release.version}")
    shutil.copytree(root / "etc/ld.so.conf.d", into / "etc/ld.so.conf.d")
    shutil.copy(root / "etc/ld.so.conf", into / "etc")
    subprocess.run([root / "usr/sbin/ldconfig", "-r", into], check=True)
    shutil.copytree(kernel / "modules", into / "usr/lib/modules")
    for name, place in _SCRIPTS.items():
        shutil.copy(HERE / "dom0" / name, into / place)
        (into / place).chmod(0o755)


def archive(tree: Path, out: Path) -> None:
    """Pack a tree as an initramfs (uncompressed: emulated CPUs unpack slower than they read)."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    with out.open("wb") as file:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"],
            input="\n".join(names).encode(), stdout=file, cwd=tree, check=True,
        )  # fmt: skip


def image(release: Release) -> Image:
    """Everything that boots this release's dom0, made once."""
    recipe = [HERE / "image.py", HERE / "releases.py", *(HERE / "dom0" / name for name in _SCRIPTS)]
    kernel = cache.built("kernel", cache.fingerprint(_MODULES), _kernel)
    packages = _packages(release)

    def unpack(into: Path) -> None:
        for suite, names in packages.items():
            debs.unpack(debs.download(suite, names), into)

    root = cache.built(f"root-{release.version}", cache.fingerprint(packages), unpack)

    def assemble(into: Path) -> None:
        tree = into / "tree"
        tree.mkdir()
        _populate(release, root, kernel, tree)
        archive(tree, into / "initramfs")
        shutil.rmtree(tree)
        packed = root / f"boot/xen-{release.version}-amd64.gz"
        (into / "xen").write_bytes(gzip.decompress(packed.read_bytes()))

    key = cache.fingerprint(release, kernel.name, *recipe)
    made = cache.built(f"dom0-{release.version}", key, assemble)
    return Image(made / "xen", kernel / "vmlinux", made / "initramfs", root)
