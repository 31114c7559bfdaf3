"""Run by tests as a process of its own: maps domain 1's ring page, and later takes over what is on it.

It says a line when the page is mapped; a line on stdin says that the monitor is dead.
"""

from __future__ import annotations

import os
import sys

from xenintro.xen.keeper import Keeper
from xenintro.xen.rescue import rescue
from xenintro.xen.xc import connect

if __name__ == "__main__":
    directory = os.environ["XENINTRO_XEN"]
    with connect(directory) as xc:
        keeper = Keeper(connect(directory), 1)
        print("kept", flush=True)
        sys.stdin.readline()
        done = rescue(xc, 1, keeper=keeper)
        keeper.close()
        print(done.adopted, done, flush=True)
