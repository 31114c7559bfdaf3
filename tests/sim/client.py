"""Run by tests as a program of its own: calls the libraries in LD_LIBRARY_PATH through ctypes.

Arguments: a statement in Python, with `xc`, `evtchn` and helpers at hand. What it prints is the result.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

directory = Path(os.environ["XENINTRO_XEN"])
(libxenctrl,) = directory.glob("libxenctrl.so.*")
xc = ctypes.CDLL(str(libxenctrl), use_errno=True)
evtchn = ctypes.CDLL("libxenevtchn.so.1", use_errno=True)
foreign = ctypes.CDLL("libxenforeignmemory.so.1", use_errno=True)

for function in (xc.xc_interface_open, xc.xc_monitor_enable, evtchn.xenevtchn_open):
    function.restype = ctypes.c_void_p
for function in (foreign.xenforeignmemory_open, foreign.xenforeignmemory_map):
    function.restype = ctypes.c_void_p


def call(function: ctypes._NamedFuncPointer, *arguments: object) -> int:
    """The value, or -errno."""
    ctypes.set_errno(0)
    value = function(*arguments)
    return value if value not in (-1, None) else -ctypes.get_errno()


def interface() -> ctypes.c_void_p:
    return ctypes.c_void_p(xc.xc_interface_open(None, None, 0))


def attach(handle: ctypes.c_void_p, domid: int = 1) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """The ring page, initialised, and the remote port."""
    port = ctypes.c_uint32()
    ring = xc.xc_monitor_enable(handle, domid, ctypes.byref(port))
    if not ring:
        raise OSError(ctypes.get_errno(), "xc_monitor_enable")
    page = (ctypes.c_char * 4096).from_address(ring)
    struct.pack_into("<IIII", page, 0, 0, 1, 0, 1)
    return page, port.value


if __name__ == "__main__":
    exec(compile(sys.argv[1], "test", "exec"))
