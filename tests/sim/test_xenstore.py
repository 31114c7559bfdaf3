"""The simulated xenstored's watches, through the client that monitors use."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

from xenintro.sim import Simulation
from xenintro.xen.xenstore import DOMAIN_GONE, DOMAIN_MADE, XenStore

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 10


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(scenario="idle") as simulation:
        yield simulation


@pytest.fixture
def store(simulation: Simulation) -> Iterator[XenStore]:
    """Watches births and deaths; what every watch says at first was taken."""
    with XenStore(simulation.environment["XENSTORED_PATH"]) as store:
        for path in (DOMAIN_GONE, DOMAIN_MADE):
            assert store.watch(path, "t")
            assert told(store, 1) == [path]
        yield store


def told(store: XenStore, count: int) -> list[str]:
    """The paths of the next events."""
    paths = [path for path, token in store.events() if token == "t"]
    while len(paths) < count:
        fd = store.fileno()
        assert fd is not None
        assert select.select([fd], [], [], DEADLINE)[0], f"no more than {paths}"
        paths += [path for path, token in store.events() if token == "t"]
    return paths


@pytest.mark.parametrize("order", ["destroy", "crash", "shutdown", "suspend"])
def test_an_end_of_any_kind_is_told_once(simulation: Simulation, store: XenStore, order: str) -> None:
    simulation.control(order)
    assert told(store, 1) == [DOMAIN_GONE]
    if order != "destroy":
        simulation.control(order)
    simulation.control("state", domid=2)
    assert store.events() == []


def test_a_reboot_is_an_end_and_a_beginning(simulation: Simulation, store: XenStore) -> None:
    assert simulation.control("reboot") == {"domid": 3}
    assert told(store, 2) == [DOMAIN_GONE, DOMAIN_MADE]


def test_a_domain_that_is_suspended_again_is_told_again(simulation: Simulation, store: XenStore) -> None:
    for _ in range(2):
        simulation.control("suspend")
        assert told(store, 1) == [DOMAIN_GONE]
        simulation.control("resume")
        assert simulation.control("state")["shutdown"] is None


def test_nodes_below_a_watched_one(simulation: Simulation, store: XenStore) -> None:
    assert store.watch("/local/domain/3", "t")
    assert told(store, 1) == ["/local/domain/3"]
    simulation.control("reboot")
    paths = told(store, 5)
    assert {"/local/domain/3/name", "/local/domain/3/domid", "/local/domain/3/vm"} < set(paths)


def test_the_same_watch_twice_is_refused(store: XenStore) -> None:
    assert not store.watch(DOMAIN_GONE, "t")
    assert store.watch(DOMAIN_GONE, "u")


def test_who_does_not_read_holds_up_nobody(simulation: Simulation, store: XenStore) -> None:
    for _ in range(3000):
        simulation.control("suspend")
        simulation.control("resume")
    with XenStore(simulation.environment["XENSTORED_PATH"]) as other:
        assert other.read("/local/domain/1/name") == "tiny"
