"""What Linux offers a process about its relatives (prctl(2))."""

from __future__ import annotations

from typing import Any

from cffi import FFI

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_ffi = FFI()
_ffi.cdef("int prctl(int option, ...);")


def die_with_parent(number: int) -> None:
    """Send this process a signal when its parent ends, however that ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc: Any = _ffi.dlopen(None)
    zero = _ffi.cast("unsigned long", 0)
    libc.prctl(option, _ffi.cast("unsigned long", value), zero, zero, zero)
