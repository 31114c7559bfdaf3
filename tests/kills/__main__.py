"""``make kills``: how many guests are lost when what watches them is killed, and how soon they run again.

``make kills-record``: and how many answers are missing in the capture.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.kills import recording
from tests.kills.campaign import VCPUS, Kill, campaign

_VICTIMS = {"worker": 0.8, "supervisor": 0.07, "front": 0.07, "job": 0.06}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="record, and compare with what Xen consumed")
    parser.add_argument("--json", action="store_true", help="one object per kill")
    options = parser.parse_args()
    if options.record:
        return _recorded(options)
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


def _recorded(options: argparse.Namespace) -> int:
    done = recording.campaign(options.count, options.seed, _VICTIMS, progress=sys.stderr.isatty())
    if options.json:
        for one in done:
            print(json.dumps(one._asdict() | {"kill": one.kill._asdict()}))
        return 0
    for way in recording.WAYS:
        some = [one for one in done if one.way == way]
        print(
            f"{way:<18} {len(some):>6} kills  {sum(one.answered for one in some)} answered"
            f"  {sum(one.missing for one in some)} missing"
            f"  {sum(bool(one.wrong) for one in some)} files wrong"
            f"  {sum(bool(one.unreadable) for one in some)} unreadable"
            f"  {sum(one.recovered for one in some)} consumed after the kill"
        )
    _say("all", [one.kill for one in done])
    bad = [one for one in done if not one.good]
    for one in bad[:20]:
        print(one)
    return bool(bad)


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
