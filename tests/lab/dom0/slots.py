"""Runs in dom0: watch a domain until SIGINT and keep every slot as it stood on the ring."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from xenintro.answered import Answered
from xenintro.session import Session
from xenintro.traps import parse_traps
from xenintro.xen.monitor import Monitor
from xenintro.xen.xc import connect


def main(domid: str, events: str, out: str) -> None:
    """Write OUT.requests and OUT.responses, slot behind slot."""
    kept: list[Answered] = []
    with connect("auto") as xc:
        monitor = Monitor(xc, int(domid), parse_traps(events))
        session = Session(monitor, observers=[kept.extend])
        signal.signal(signal.SIGINT, lambda *_: session.stop())
        with monitor:
            print("watching", file=sys.stderr, flush=True)
            session.run()
    requests = (answered.event.raw for answered in kept)
    responses = (answered.response for answered in kept)
    Path(f"{out}.requests").write_bytes(b"".join(requests))
    Path(f"{out}.responses").write_bytes(b"".join(responses))


if __name__ == "__main__":
    main(*sys.argv[1:])
