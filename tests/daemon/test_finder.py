"""Which domain is taken, and which is left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from xenintro.service import finder
from xenintro.sim.launch import Simulation
from xenintro.xen.xenstore import XenStore


def domain(domid: int, **more: Any) -> Any:
    values = {"domid": domid, "name": "a", "uuid": f"uuid-{domid}", "dying": False, "shutdown": False}
    return SimpleNamespace(**(values | more))


class Store:
    """A xenstore that has some domains introduced."""

    def __init__(self, introduced: set[int] | None) -> None:
        self._introduced = introduced

    def watch(self, node: str) -> bool:
        return True

    def fileno(self) -> int:
        return 0

    def introduced(self, domid: int) -> bool | None:
        return None if self._introduced is None else domid in self._introduced


@pytest.mark.parametrize(
    ("name", "introduced", "domains", "found"),
    [
        ("a", {1, 2}, [domain(1, name="b"), domain(2)], 2),
        ("uuid-1", {1, 2}, [domain(1, name="b"), domain(2)], 1),
        ("a", {1, 2}, [domain(1, dying=True), domain(2)], 2),  # rebooting: both have the name
        ("a", {1, 2}, [domain(1, shutdown=True)], None),  # suspended or crashed
        ("a", {1}, [domain(2)], None),  # being built
        ("a", None, [domain(2)], 2),  # no xenstore: taken as it is
        ("a", {1}, [], None),
    ],
)
def test_find(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    introduced: set[int] | None,
    domains: list[Any],
    found: int | None,
) -> None:
    monkeypatch.setattr(finder, "XenStore", lambda: Store(introduced))
    monkeypatch.setattr(finder, "list_domains", lambda _: domains)

    info = finder.Finder(None, name).find()  # type: ignore[arg-type]

    assert (None if info is None else info.domid) == found


def test_introduced() -> None:
    with Simulation() as simulation, XenStore(simulation.environment["XENSTORED_PATH"]) as store:
        assert store.introduced(1) is True
        assert store.introduced(99) is False
    assert XenStore("/nowhere").introduced(1) is None
