"""Views that somebody else has made: answers put vCPUs into them, and no vCPU is left there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import TIMEOUT, environment
from tests.cli.simulated import finished, simulated_host
from tests.daemon.daemon import worker_of

if TYPE_CHECKING:
    from tests.cli.simulated import Host

_MADE_BY_ANOTHER = """
import sys
from xenintro.xen.xc import connect
with connect(sys.argv[1]) as xc:
    xc.set_altp2m_state(1, on=True)
    assert xc.create_view(1, "rwx") == 1
"""


@pytest.fixture(params=["switch-view = 1", "fast-singlestep = 1"])
def rules(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "view.toml"
    path.write_text(f'[[rule]]\nname = "away"\non = "write_ctrlreg"\nanswer = {{ {request.param} }}\n')
    return path


def make_view(host: Host) -> None:
    subprocess.run(
        [sys.executable, "-c", _MADE_BY_ANOTHER, str(host.simulation.directory)],
        env=environment(**host.simulation.environment),
        timeout=TIMEOUT,
        check=True,
    )


def views(host: Host) -> list[int]:
    return [vcpu["view"] for vcpu in host.simulation.control("state")["vcpus"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_vcpu_is_left_in_a_view(rules: Path, number: signal.Signals) -> None:
    with simulated_host(vcpus=2, scenario="storm") as host:
        make_view(host)
        process = host.start(
            "watch", "-d", "1", "-e", "cr3,singlestep:asked", "-p", str(rules), "--mode", "enforce"
        )
        assert host.simulation.wait("answered", 50)
        assert 1 in views(host)
        if number == signal.SIGKILL:
            os.kill(worker_of(process.pid), number)
        else:
            process.send_signal(number)
        finished(process)
        assert views(host) == [0, 0]
        assert host.simulation.control("state")["altp2m"], "what another has switched on stays on"
        assert host.simulation.report()["stuck_vcpus"] == []
        assert host.simulation.wait("progress", 100, timeout=TIMEOUT)
