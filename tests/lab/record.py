"""Make the fixtures in slots/: every kind's raw slots from a real Xen, as the ring had them.

    python -m tests.lab.record [--cpu vmx|svm] [--xen 4.14|4.17|4.20]

Beside the requests stand the responses that xenintro put, and Xen took, with policy "allow".
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

from tests.lab.guest.expected import watch_all
from tests.lab.machine import MODELS
from tests.lab.payload import newest_wheel, payload
from tests.lab.releases import DEFAULT, RELEASES
from tests.lab.rig import Rig
from tests.lab.scenario import Guest

SLOTS = Path(__file__).with_name("slots")
_SCRIPT = Path(__file__).with_name("dom0") / "slots.py"
_PARTS = ("requests", "responses")


def record(rig: Rig) -> dict[str, bytes]:
    """Requests and responses of one run of every kind."""
    words, events = watch_all(rig.cpu)
    rig.put("/root/slots.py", _SCRIPT.read_text())
    with Guest(rig, words) as guest:
        job = rig.start(f"python3 /root/slots.py {guest.domid} {events} /root/slots")
        job.wait("grep -q ^watching err")
        guest.unpause()
        guest.done()
        ended = job.finish("INT")
    if ended.status:
        raise RuntimeError(ended.errors)
    return {part: rig.get(f"/root/slots.{part}") for part in _PARTS}


def main() -> None:
    """Boot, record, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cpu", choices=MODELS, default="vmx")
    parser.add_argument("--xen", choices=RELEASES, default=DEFAULT)
    asked = parser.parse_args()
    with Rig(asked.cpu, asked.xen, payload(newest_wheel())) as rig:
        recorded = record(rig)
    SLOTS.mkdir(exist_ok=True)
    for part, data in recorded.items():
        path = SLOTS / f"{asked.cpu}-{asked.xen}.{part}.xz"
        path.write_bytes(lzma.compress(data, preset=9))
        print(f"{path.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
