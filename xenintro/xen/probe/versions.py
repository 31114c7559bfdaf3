"""Which versions of everything meet here: for bug reports."""

from __future__ import annotations

import platform
from importlib import metadata

from xenintro.errors import XenintroError

_PACKAGES = ("cffi", "click", "msgspec")


def versions(selection: str) -> dict[str, str]:
    """Name and version of what xenintro runs on; what cannot be known says why.

    Args:
        selection: which Xen, see `xenintro.xen.locate.locate`.
    """
    rows = {"Python": platform.python_version()} | {name: _package(name) for name in _PACKAGES}
    return (
        rows | {"kernel": f"{platform.system()} {platform.release()} {platform.machine()}"} | _xen(selection)
    )


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _xen(selection: str) -> dict[str, str]:
    rows = {}
    try:
        # Only now: it works without its native parts, and says what is missing.
        from xenintro.xen.xc import connect

        with connect(selection) as xc:
            rows["libxenctrl"] = str(xc.library.path)
            rows["Xen"] = xc.version()
            rows["vm_event"] = str(xc.vm_event_version())
    except XenintroError as error:
        rows.setdefault("Xen", error.what)
    return rows
