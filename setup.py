"""What pyproject.toml cannot say: the cffi extension, the simulator's library, the wheel's tags."""

import os
import runpy
from pathlib import Path

from setuptools import Extension, setup

SIM = "xenintro/sim"
DECLARED = "xenintro/xen/build_declared.py"
C_FLAGS = (
    "-std=gnu11 -O2 -Wall -Wextra -fvisibility=hidden "
    "-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"
)

# A pure wheel (replay, decode, policies; nothing live) is made only when asked for:
# an optional extension that fails to build would pass for a complete wheel.
if os.environ.get("XENINTRO_NO_NATIVE") == "1":
    setup()
else:
    declared = [f"{DECLARED}:{name}" for name in runpy.run_path(DECLARED)["BUILDERS"]]
    setup(
        cffi_modules=["xenintro/xen/build_native.py:ffibuilder", *declared],
        ext_modules=[
            # Not a Python module: the library that looks like libxenctrl to a simulator's client.
            Extension(
                "xenintro.sim._client",
                [f"{SIM}/client.c"],
                depends=[f"{SIM}/client.map", *map(str, Path(SIM).glob("*.h"))],
                extra_compile_args=C_FLAGS.split(),
                extra_link_args=[
                    f"-Wl,--version-script={SIM}/client.map",
                    "-Wl,-z,now,-z,relro",
                ],
                py_limited_api=True,
            )
        ],
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
