"""One boot per emulated CPU and Xen release, shared by all tests that want it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.cache import LabUnavailable
from tests.lab.guest.expected import alone
from tests.lab.payload import newest_wheel, payload
from tests.lab.rig import Rig

#: CPU and Xen of each boot, in the order of their running; the second part only when asked for.
BOOTS = [("vmx", "4.17"), ("svm", "4.17")]
MORE_BOOTS = [("svm", "4.14"), ("svm", "4.20")]

#: Once in some hundred guests QEMU's SVM gives a process of dom0 a segmentation fault (README.md, Measured).
#: A second try is shown as RERUN; there is none where a guest may have been lost.
RETRIED = {"svm": (pytest.mark.flaky(reruns=1),)}
RETRIED_UNLESS_LOST = {"svm": (pytest.mark.flaky(reruns=1, rerun_except="AssertionError"),)}


#: Watching processes killed per boot, and attaches in a row, unless asked otherwise.
KILLS, ATTACHES = 6, 5


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-releases", action="store_true", help="the lab on Xen 4.14 and 4.20 too")
    parser.addoption(
        "--kills", type=int, default=KILLS, help="watching processes that the lab kills, per boot"
    )
    parser.addoption("--attaches", type=int, default=ATTACHES, help="attaches in a row, per boot")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cpus(*names): only on these emulated CPUs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rig" not in metafunc.fixturenames:
        return
    everything = metafunc.config.getoption("--all-releases", default=False)
    boots = [*BOOTS, *(MORE_BOOTS if everything else [])]
    if only := metafunc.definition.get_closest_marker("cpus"):
        boots = [boot for boot in boots if boot[0] in only.args]
    retried = RETRIED_UNLESS_LOST if metafunc.module.__name__.endswith("test_rescue") else RETRIED
    marks = [pytest.mark.lab, pytest.mark.timeout(1800)]  # the first may have to compile an emulator before
    names: list[str]
    cases: list[tuple[tuple[str, str]] | tuple[tuple[str, str], str]]
    if "word" in metafunc.fixturenames:
        names, cases = ["rig", "word"], [(boot, word) for boot in boots for word in alone(boot[0])]
        marks.append(pytest.mark.thorough)
    else:
        names, cases = ["rig"], [(boot,) for boot in boots]
    params = [
        pytest.param(*case, marks=(*marks, *retried.get(case[0][0], ())), id="-".join((*case[0], *case[1:])))
        for case in cases
    ]
    metafunc.parametrize(names, params, indirect=["rig"], scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What boots runs last, one boot after the other."""
    order = {boot: index for index, boot in enumerate([*BOOTS, *MORE_BOOTS])}

    def boot_of(item: pytest.Item) -> int:
        spec = getattr(item, "callspec", None)
        return order.get(spec.params.get("rig"), -1) if spec else -1

    items.sort(key=boot_of)


_killed: list[str] = []


def report(rig: Rig, what: str, kills: list[dict[str, Any]]) -> None:
    """Tell at the end of the run how kills went."""
    seconds = sorted(kill["seconds"] for kill in kills)
    p50, p99 = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    phases = Counter(kill["phase"] for kill in kills)
    met = ", ".join(f"{count} in {phase}" for phase, count in sorted(phases.items()))
    lost = sum(bool(kill["lost"]) for kill in kills)
    _killed.append(
        f"{rig.cpu} {rig.release.version}, {what}: {len(kills)} kills ({met}), "
        f"guests lost: {lost}, running again p50 {p50:.2f} s p99 {p99:.2f} s"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _killed:
        terminalreporter.section("lab: killed watchers")
        for line in _killed:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A booted dom0 with the wheel installed."""
    cpu, xen = request.param
    try:
        booted = Rig(cpu, xen, payload(newest_wheel()))
    except LabUnavailable as why:
        pytest.skip(str(why))
    with booted:
        yield booted
