"""``make kills``: how many guests are lost when what watches them is killed, and how soon they run again."""

from __future__ import annotations

import argparse
import json
import sys

from tests.kills.campaign import VCPUS, Kill, campaign

_VICTIMS = {"worker": 0.8, "supervisor": 0.07, "front": 0.07, "job": 0.06}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one object per kill")
    options = parser.parse_args()
    kills = campaign(options.count, options.seed, _VICTIMS, progress=sys.stderr.isatty())
    if options.json:
        for kill in kills:
            print(json.dumps(kill._asdict()))
        return 0
    for vcpus in VCPUS:
        _say(f"{vcpus} vCPUs", [kill for kill in kills if kill.vcpus == vcpus])
    for victim in _VICTIMS:
        _say(f"{victim} killed", [kill for kill in kills if kill.victim == victim])
    _say("all", kills)
    lost = [kill for kill in kills if kill.lost]
    for kill in lost[:20]:
        print(kill)
    return bool(lost)


def _say(name: str, kills: list[Kill]) -> None:
    times = sorted(kill.seconds * 1000 for kill in kills)
    if times:
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        lost = sum(bool(kill.lost) for kill in kills)
        print(
            f"{name:<18} {len(kills):>6} kills  {lost} lost   running again after p50 {p50:.0f} ms"
            f"  p99 {p99:.0f} ms  max {times[-1]:.0f} ms"
        )


if __name__ == "__main__":
    sys.exit(main())
