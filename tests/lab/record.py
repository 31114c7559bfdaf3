"""Make the fixtures in fixtures/captures: every kind of event on a real Xen, recorded there.

    python -m tests.lab.record [--cpu vmx|svm] [--xen 4.14|4.17|4.20]

Two captures of one guest each: everything allowed, and `rules.toml` enforced.
"""

from __future__ import annotations

import argparse

from tests.lab.captures import RULES, path_of
from tests.lab.guest.expected import watch_all
from tests.lab.machine import MODELS
from tests.lab.payload import newest_wheel, payload
from tests.lab.releases import DEFAULT, RELEASES
from tests.lab.rig import Rig
from tests.lab.scenario import Guest

_RULES, _CAPTURE = "/root/rules.toml", "/root/lab.pcapng.gz"


def record(rig: Rig, options: str) -> bytes:
    """The capture of one run of every kind."""
    words, events = watch_all(rig.cpu)
    with Guest(rig, words) as guest:
        job = rig.start(f"xenintro record -d {guest.domid} -e {events} --force -w {_CAPTURE} {options}")
        job.wait("grep -q ^watching err", timeout=300)
        guest.unpause()
        guest.done()
        ended = job.finish("INT", timeout=300)
    if ended.status:
        raise RuntimeError(ended.errors)
    return rig.get(_CAPTURE)


def main() -> None:
    """Boot, record, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cpu", choices=MODELS, default="vmx")
    parser.add_argument("--xen", choices=RELEASES, default=DEFAULT)
    asked = parser.parse_args()
    with Rig(asked.cpu, asked.xen, payload(newest_wheel())) as rig:
        rig.put(_RULES, RULES.read_text().rstrip("\n"))
        for rules, options in ((False, ""), (True, f"-p {_RULES} --mode enforce")):
            path = path_of(asked.cpu, asked.xen, rules=rules)
            path.write_bytes(record(rig, options))
            print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
