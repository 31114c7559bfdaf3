"""A shell in the lab's dom0, on a real Xen.

    python -m tests.lab.shell [--cpu vmx|svm] [--xen 4.14|4.17|4.20] [--no-wheel]

Guests: lab 'WORDS' starts one (the words are in tests/lab/README.md), paused; Ctrl-] ends the lab.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import tty

from tests.lab.machine import MODELS
from tests.lab.payload import newest_wheel, payload
from tests.lab.releases import DEFAULT, RELEASES
from tests.lab.rig import Rig

_END = b"\x1d"


def _talk(rig: Rig) -> None:
    """Join this terminal to dom0's console until Ctrl-] or the end of the emulator."""
    line = rig.machine.console
    while rig.machine.alive():
        ready, _, _ = select.select([sys.stdin, line], [], [], 1)
        if line in ready:
            data = line.recv(65536)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if sys.stdin in ready:
            typed = os.read(sys.stdin.fileno(), 1024)
            if not typed or _END in typed:
                return
            line.sendall(typed)


def main() -> None:
    """Boot and hand over the console."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cpu", choices=MODELS, default="vmx")
    parser.add_argument("--xen", choices=RELEASES, default=DEFAULT)
    parser.add_argument("--no-wheel", action="store_true", help="dom0 without xenintro")
    asked = parser.parse_args()
    print(f"booting Xen {asked.xen} on {asked.cpu} (the first time builds it)", file=sys.stderr)
    with Rig(asked.cpu, asked.xen, payload(None if asked.no_wheel else newest_wheel())) as rig:
        rig.console.stop()
        print(f"up after {rig.boot_seconds:.0f} s; Ctrl-] ends", file=sys.stderr)
        rig.machine.console.sendall(b"\r")
        if not sys.stdin.isatty():
            _talk(rig)
            return
        before = termios.tcgetattr(sys.stdin)
        try:
            tty.setraw(sys.stdin)
            _talk(rig)
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


if __name__ == "__main__":
    main()
