"""The libraries of one Xen release, loaded at run time and declared from the table.

Nothing is linked: the same wheel serves every release. A call that the release or the library
lacks is a capability that is off, never a crash.
"""

from __future__ import annotations

import contextlib
import logging
import os
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from xenintro.errors import NotSupportedError
from xenintro.xen import signatures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cffi import FFI

    from xenintro.xen.locate import Location
    from xenintro.xen.signatures import Release

log = logging.getLogger(__name__)

#: libxenctrl's companions in the order of their dependencies: each finds the ones before it
#: loaded already, so a directory named by the user is never mixed with the host's own files.
_COMPANIONS = (
    "libxentoolcore.so.1",
    "libxentoollog.so.1",
    "libxencall.so.1",
    "libxenevtchn.so.1",
    "libxengnttab.so.1",
    "libxenforeignmemory.so.1",
    "libxendevicemodel.so.1",
)

_QUIET = 10  # XTL_NUM_LEVELS: above every level that libxc logs at


def _dlopen(ffi: FFI, name: str) -> Any:
    return ffi.dlopen(name, os.RTLD_NOW | os.RTLD_LOCAL)


class Library:
    """The loaded calls of one release.

    Args:
        location: which libxenctrl.
        dlopen: loads one library by path or name, or raises OSError; a fake one serves tests.

    Attributes:
        release: of libxenctrl; the declarations are those of the newest known release at most.
        path: of libxenctrl.
        ffi: makes and reads the C values of the calls; for this package only.

    Raises:
        NotSupportedError: the dynamic linker refuses the library.
    """

    def __init__(self, location: Location, dlopen: Callable[[FFI, str], Any] = _dlopen) -> None:
        self.release: Release = location.release
        self.path = location.library
        self.ffi = _declared(signatures.clamp(self.release))
        # Any: every attribute of a dlopen()ed library has the type that is declared.
        self._libc: Any = self.ffi.dlopen(None)
        self._handles: list[Any] = self._load(location.library, dlopen)
        self._found: dict[str, Callable[..., Any] | None] = {}
        if self.release > signatures.NEWEST:
            log.warning(
                "Xen %d.%d is newer than this program knows: using the calls of %d.%d",
                *self.release,
                *signatures.NEWEST,
            )

    def has(self, call: str) -> bool:
        """Whether this release has the call and the library exports it."""
        return self._find(call) is not None

    def missing(self, prefix: str = "") -> list[str]:
        """The calls of the table (with this prefix) that are not available, by name."""
        return sorted(call for call in signatures.CALLS if call.startswith(prefix) and not self.has(call))

    def call(self, name: str) -> Callable[..., Any]:
        """The C function behind a call.

        Raises:
            NotSupportedError: not available; the text names the first release that has it.
        """
        function = self._find(name)
        if function is None:
            raise _unavailable(name, self.release)
        return function

    def parameters(self, call: str) -> tuple[str, ...]:
        """The names of a call's arguments in this release, none if the release lacks it."""
        form = signatures.form(call, self.release)
        return form.parameters if form else ()

    def address(self, call: str) -> int:
        """Where the C function of a call is, for code that calls it without Python."""
        return int(self.ffi.cast("uintptr_t", self.call(call)))  # type: ignore[arg-type]

    @cached_property
    def quiet_logger(self) -> Any:
        """A logger for libxc that prints nothing: an error is told once, by its exception.

        NULL, which logs to stderr, where the library has none. Lives as long as the process.
        """
        if not self.has("xtl_createlogger_stdiostream"):
            return self.ffi.NULL
        logger = self.call("xtl_createlogger_stdiostream")(self._libc.stderr, _QUIET, 0)
        return self.ffi.cast("xentoollog_logger *", logger)

    def munmap(self, address: int, length: int) -> int:
        """Libc's munmap: 0, or -1 with `errno` set."""
        return int(self._libc.munmap(self.ffi.cast("void *", address), length))

    def bytes_at(self, address: int, length: int) -> bytes:
        """A copy of memory of this process, a mapped page for instance."""
        return bytes(self.ffi.buffer(self.ffi.cast("char *", address), length))

    @property
    def errno(self) -> int:
        """What the last call of this thread left in errno."""
        return self.ffi.errno

    def _load(self, libxenctrl: Path, dlopen: Callable[[FFI, str], Any]) -> list[Any]:
        """Libxenctrl and its companions: those beside it, or the dynamic linker's choice."""
        handles = []
        for name in _COMPANIONS:
            beside = libxenctrl.parent / name
            with contextlib.suppress(OSError):  # a host without a companion lacks its calls
                handles.append(dlopen(self.ffi, str(beside) if beside.exists() else name))
        try:
            return [dlopen(self.ffi, str(libxenctrl)), *handles]
        except OSError as error:
            raise NotSupportedError(
                f"cannot load {libxenctrl}", why=str(error), hint=f"see: ldd {libxenctrl}"
            ) from error

    def _find(self, call: str) -> Callable[..., Any] | None:
        if call not in self._found:
            self._found[call] = self._lookup(call)
        return self._found[call]

    def _lookup(self, call: str) -> Callable[..., Any] | None:
        form = signatures.form(call, self.release)
        if form is None:
            return None
        found = (getattr(handle, form.symbol, None) for handle in self._handles)
        return next((function for function in found if function is not None), None)


def _declared(release: Release) -> FFI:
    """What the calls of a release look like."""
    try:
        module = import_module("xenintro.xen.declared.xen_{}_{}".format(*release))
    except ImportError as error:
        raise NotSupportedError(
            "this installation of xenintro cannot load libxenctrl",
            why=str(error),
            hint="install the wheel for Linux on x86-64, not the pure one; and: pip install cffi",
        ) from error
    ffi: FFI = module.ffi
    return ffi


def _unavailable(call: str, release: Release) -> NotSupportedError:
    since = signatures.first_release(call)
    here = f"{release[0]}.{release[1]}"
    if since is not None and since > release:
        return NotSupportedError(f"{call} needs Xen {since[0]}.{since[1]}", why=f"this host runs Xen {here}")
    return NotSupportedError(
        f"{call} is not available", why=f"the libxenctrl of Xen {here} on this host lacks it"
    )
