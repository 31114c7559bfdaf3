"""What pyproject.toml cannot say: the cffi extension, the simulator's client library, the wheel tags."""

import os

from setuptools import Extension, setup

# A pure wheel (replay, decode, policies; nothing live) is made only when asked for:
# an optional extension that fails to build would pass for a complete wheel.
if os.environ.get("XENINTRO_NO_NATIVE") == "1":
    setup()
else:
    setup(
        cffi_modules=["xenintro/xen/build_native.py:ffibuilder"],
        ext_modules=[
            # Not a Python module: the library that looks like libxenctrl to a simulator's client.
            Extension(
                "xenintro.sim._client",
                ["xenintro/sim/client.c"],
                depends=["xenintro/sim/client.map"],
                extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
                extra_link_args=["-Wl,--version-script=xenintro/sim/client.map", "-Wl,-z,now,-z,relro"],
                py_limited_api=True,
            )
        ],
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
