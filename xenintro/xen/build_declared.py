"""How ``xenintro.xen.declared`` is built: the prototypes of every release are read once, here.

cffi's parser of C would take a fifth of the time in which ``watch`` starts. Paths are relative to the
project, where setuptools runs; what the project needs to run is not there, so the table is read as a file.
"""

import runpy
from functools import partial

from cffi import FFI

_LIBC = "extern FILE *stderr; int munmap(void *addr, size_t length);"

_table = runpy.run_path("xenintro/xen/signatures.py")


def _declared(minor: int) -> FFI:
    ffi = FFI()
    ffi.cdef(_table["declarations"]((4, minor)))
    ffi.cdef(_LIBC)
    ffi.set_source(f"xenintro.xen.declared.xen_4_{minor}", None)
    return ffi


#: Names here, that setup.py gives to cffi, to what makes the module of each release.
BUILDERS = {
    f"xen_4_{minor}": partial(_declared, minor)
    for minor in range(_table["OLDEST"][1], _table["NEWEST"][1] + 1)
}
globals().update(BUILDERS)
