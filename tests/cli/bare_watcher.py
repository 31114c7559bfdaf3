"""Run by tests as a process of its own, to be killed: watches domain 1 with no supervisor to save it.

Arguments: what to trap, and after how many events to end in order.
"""

from __future__ import annotations

import os
import sys

from xenintro.session import Session
from xenintro.traps import parse_traps
from xenintro.xen.monitor import Monitor
from xenintro.xen.xc import connect

if __name__ == "__main__":
    with connect(os.environ["XENINTRO_XEN"]) as xc, Monitor(xc, 1, parse_traps(sys.argv[1])) as monitor:
        Session(monitor, limit=int(sys.argv[2])).run()
