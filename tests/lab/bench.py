"""The lab's bench: xenintro beside Debian's xen-access, in turns, on one guest, in one boot.

    python -m tests.lab.bench [--cpu vmx|svm] [--events 500] [--rounds 5]

Times are the guest's own, from before the trapping instruction to after it. Emulated time means
nothing in itself; the ratio of two programs in the same boot does. QEMU gets two CPUs, so that the
guest does not have to wait until dom0 has printed; Bochs has one.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from tests.lab.guest.facts import value
from tests.lab.payload import newest_wheel, payload
from tests.lab.rig import Rig
from tests.lab.scenario import Guest

#: Kind of event: the guest's words, xenintro's option, xen-access's mode.
KINDS = {
    "write_ctrlreg": ("bench-cr4", "cr4", "write_ctrlreg_cr4"),
    "cpuid": ("bench-cpuid", "cpuid", "cpuid"),
}

_REFERENCE = "xen-access"


def measure(rig: Rig, kind: str, events: int, rounds: int) -> list[dict[str, float | str]]:
    """One row per run of a program."""
    words, option, mode = KINDS[kind]
    rig.put("/root/bench.py", Path(__file__).with_name("dom0").joinpath("bench.py").read_text())
    with Guest(rig, f"forever {words}") as guest:
        guest.unpause()
        guest.done()
        watch = f"xenintro watch --domid {guest.domid} -e {option}".split()
        request = {
            "domid": guest.domid,
            "address": value("SAMPLES"),
            "samples": value("SAMPLE_COUNT"),
            "events": events,
            "rounds": rounds,
            "programs": {_REFERENCE: [_REFERENCE, str(guest.domid), mode], "xenintro": watch},
        }
        done = rig.run(f"python3 /root/bench.py '{json.dumps(request)}'", timeout=900)
    ticks = float(rig.run("xl info | awk '/^cpu_mhz/ { print $3 }'").output)
    rows = [json.loads(line) for line in done.output.splitlines()]
    return [{**row, **{name: row[name] / ticks for name in ("idle", "p50", "p99")}} for row in rows]


def table(kind: str, rows: list[dict[str, float | str]]) -> list[str]:
    """Medians over the rounds, and each program's ratio to the reference."""

    def median(program: str, column: str) -> float:
        return statistics.median(float(row[column]) for row in rows if row["program"] == program)

    lines = [f"{kind:14}" + "".join(f"{title:>18}" for title in ("events/s", "p50, us", "p99, us"))]
    for program in dict.fromkeys(str(row["program"]) for row in rows):
        cells = [
            f"{median(program, column):9.0f} {median(program, column) / median(_REFERENCE, column):7.2f}x"
            for column in ("rate", "p50", "p99")
        ]
        lines.append(f"  {program:12}" + "".join(cells))
    return lines


def main() -> None:
    """Run the bench and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cpu", choices=["vmx", "svm"], default="svm")
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with Rig(asked.cpu, payload=payload(newest_wheel()), cpus=2) as rig:
        for kind in KINDS:
            rows = measure(rig, kind, asked.events, asked.rounds)
            print("\n".join(table(kind, rows)), flush=True)


if __name__ == "__main__":
    main()
