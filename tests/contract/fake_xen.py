"""A Xen for unit tests: Python functions behind the real C prototypes of any release.

Every call passes through cffi with the declaration of that release, so a wrong number, order or
type of arguments fails here as it would crash there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenintro.xen import signatures
from xenintro.xen.library import Library
from xenintro.xen.locate import Location
from xenintro.xen.xc import Xc

if TYPE_CHECKING:
    from collections.abc import Callable

    from cffi import FFI

#: Any non-null pointer; nothing looks behind it.
HANDLE = 0x1000


class FakeXen:
    """What the fake libxc does and what it was asked.

    Args:
        release: whose symbols there are.
        absent: symbols left out although the release has them.

    Attributes:
        answers: by C symbol: a result, `(result, errno)`, or a function of the C arguments.
        calls: (symbol, arguments after the handle) of every call so far, opening excluded.
    """

    def __init__(self, release: tuple[int, int] = (4, 17), absent: tuple[str, ...] = ()) -> None:
        self.release = release
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        rows = (signatures.form(call, release) for call in signatures.CALLS)
        self._forms = {row.symbol: row for row in rows if row and row.symbol not in absent}

    def library(self) -> Library:
        return Library(Location(self.release, Path("/nowhere/libxenctrl.so")), dlopen=self._dlopen)

    def xc(self, own_domid: int = 0) -> Xc:
        xc = Xc(self.library(), own_domid)
        self.calls.clear()
        return xc

    def _dlopen(self, ffi: FFI, name: str) -> Handle:
        if not name.endswith("libxenctrl.so"):
            raise OSError(f"{name}: no such library")
        return Handle(self, ffi)

    def function(self, ffi: FFI, symbol: str) -> Any:
        form = self._forms[symbol]
        pointer = form.prototype.replace(f"{symbol}(", "(*)(", 1)

        def call(*args: Any) -> Any:
            self.calls.append((symbol, *args[1:]))
            answer = self.answers.get(symbol, HANDLE if "*(*)" in pointer else 0)
            if callable(answer):
                answer = answer(*args)
            if isinstance(answer, tuple):
                answer, ffi.errno = answer
            return ffi.cast("void *", answer) if "*(*)" in pointer else answer

        ctype = ffi.typeof(pointer)
        # A typed pointer cannot be returned from a void pointer: the callback gets void * then.
        if ctype.result.kind == "pointer":
            pointer = "void *(*)" + pointer.split("(*)", 1)[1]
        function: Callable[..., Any] = ffi.callback(pointer, call)
        return ffi.cast(ctype, function), function


class Handle:
    """What dlopen() returns: C functions as attributes."""

    def __init__(self, xen: FakeXen, ffi: FFI) -> None:
        self._xen, self._ffi = xen, ffi
        self._alive: list[Any] = []

    def __getattr__(self, symbol: str) -> Any:
        try:
            function, callback = self._xen.function(self._ffi, symbol)
        except KeyError:
            raise AttributeError(symbol) from None
        self._alive.append(callback)
        return function
