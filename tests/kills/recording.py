"""Kills a recording process at random instants, and compares the capture with what the simulator consumed."""

from __future__ import annotations

import random
import shutil
import struct
import sys
import tempfile
import time
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from tests.kills.campaign import VCPUS, Campaign, Kill
from xenintro.abi import interface
from xenintro.capture import Capture
from xenintro.capture.naming import PART, Rotation
from xenintro.errors import DamagedInputError
from xenintro_cli.recording import Keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xenintro.abi import Interface
    from xenintro_cli.watch import Choice

#: What is recorded into, in turn: one file, or many small ones that are compressed meanwhile.
WAYS = {
    "one file": ("capture.pcapng", Rotation()),
    "compressed": ("capture.pcapng.gz", Rotation()),
    "rotated, gzip": ("capture.pcapng.gz", Rotation(size=48 << 10)),
    "rotated, zstd": ("capture.pcapng.zst", Rotation(size=48 << 10)),
}
_BLOCK = 5
#: Events that are recorded, and the share of the kills that need not hit among them.
_EVENTS, _ANYWHERE = 100, 0.2
#: Seconds between an event and a kill, at most.
_JITTER = 0.005

#: A request and its response, as bytes.
Pair = tuple[bytes, bytes]


class Recorded(NamedTuple):
    """What became of a recording.

    Attributes:
        kill: and of its guest.
        way: a key of `WAYS`.
        answered: requests that the recording process answered, and Xen consumed.
        missing: those among them that are in no file.
        wrong: what is in the files and did not happen so, or in that order; empty if there is nothing.
        unreadable: why a file could not be read to its end; empty if all could.
        recovered: requests in the files beyond those: published before the kill, and consumed after it.
    """

    kill: Kill
    way: str
    answered: int
    missing: int
    wrong: str
    unreadable: str
    recovered: int

    @property
    def good(self) -> bool:
        """Whether nothing was lost."""
        return not (self.kill.lost or self.missing or self.wrong or self.unreadable)


class RecordingCampaign(Campaign):
    """Turns on one simulated host that are recorded.

    Args:
        vcpus: of the guest.
        seed: of the random instants.
        way: a key of `WAYS`.
    """

    def __init__(self, vcpus: int, seed: int, way: str) -> None:
        super().__init__(vcpus, seed)
        self._way = way
        self._folder = Path(tempfile.mkdtemp())

    def close(self) -> None:
        """End the simulation."""
        super().close()
        shutil.rmtree(self._folder)

    def choice(self) -> Choice:
        """As `Campaign.choice`, and recorded without printing."""
        name, rotation = WAYS[self._way]
        path = self._folder / "captures" / name
        # Turns that only measure how long one takes have left theirs.
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        keep = Keep(path=path, rotation=rotation)
        return replace(super().choice(), keep=keep, printing=False, count=_EVENTS, duration=5.0)

    @cached_property
    def lifetime(self) -> float:
        """As `Campaign.lifetime`, of one turn: most kills do not go by it."""
        started = time.monotonic()
        self.start()
        self.wait_for_all()
        return time.monotonic() - started

    def instant(self) -> Callable[[], object]:
        """As `Campaign.instant`, or after any number of events."""
        if self.random.random() < _ANYWHERE:
            return super().instant()
        events = self.simulation.report()["events"]
        more, seconds = self.random.randint(1, _EVENTS), self.random.uniform(0, _JITTER)

        def wait() -> None:
            self.simulation.wait("events", events + 1, timeout=10)
            self.simulation.wait("events", events + more, timeout=1)
            time.sleep(seconds)

        return wait

    def recorded(self, victim: str) -> Recorded:
        """One turn, and what is in its files."""
        log = self._folder / "log"
        _ = self.lifetime  # measured before the log begins
        self.simulation.control("log", path=str(log))
        kill = self.turn(victim)
        self.simulation.control("log")
        consumed = read_log(log, interface("vm_event-7"))
        others = {self.pids.get("front"), self.pids.get("supervisor")}
        answered = sum(pid not in others for pid, _ in consumed)
        files, unreadable = read_captures(self._folder / "captures")
        pairs = [pair for _, pair in consumed]
        return Recorded(
            *(kill, self._way, answered, max(0, answered - len(files)), difference(files, pairs)),
            *(unreadable, max(0, len(files) - answered)),
        )


def read_log(path: Path, layout: Interface) -> list[tuple[int, Pair]]:
    """What the simulated Xen consumed, in order, and which process had told it."""
    record = struct.Struct(f"<I{layout.slot_size}s{layout.slot_size}s")
    return [(pid, (request, response)) for pid, request, response in record.iter_unpack(path.read_bytes())]


def read_captures(folder: Path) -> tuple[list[Pair], str]:
    """What the captures in a folder say was answered, in order; and what cannot be read, if anything."""
    pairs: list[Pair] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix != PART):
        try:
            with Capture(path) as capture:
                pairs += [(one.event.raw, one.response) for one in capture if one.response]
                if capture.damage is not None:
                    return pairs, str(capture.damage)
        except DamagedInputError as error:
            return pairs, f"{error}: {path.stat().st_size} bytes"
    return pairs, ""


def difference(files: list[Pair], consumed: list[Pair]) -> str:
    """The first request that was not answered as the files say; empty if there is none."""
    for n, (told, true) in enumerate(zip(files, consumed, strict=False)):
        if told != true:
            what = "another request" if told[0] != true[0] else "another response"
            return f"{what} at {n} of {len(consumed)} consumed, {len(files)} recorded"
    beyond = len(files) - len(consumed)
    return f"{beyond} answers that Xen never had" if beyond > 0 else ""


def campaign(
    count: int, seed: int, victims: dict[str, float], progress: bool = False, ways: Iterable[str] = WAYS
) -> list[Recorded]:
    """Kill ``count`` times, or until Ctrl-C; each way to record, and each number of vCPUs, in turn.

    Args:
        count: how often.
        seed: of all that is random.
        victims: who is killed, with weights.
        progress: say how far it is on stderr.
        ways: keys of `WAYS`.
    """
    chooser = random.Random(seed)
    names, weights = list(victims), list(victims.values())
    kinds = list(ways)
    done: list[Recorded] = []
    try:
        for start in range(0, count, _BLOCK):
            block, rounds = start // _BLOCK, start // _BLOCK // len(VCPUS)
            vcpus, way = VCPUS[block % len(VCPUS)], kinds[(block + rounds) % len(kinds)]
            with closing(RecordingCampaign(vcpus, seed + start, way)) as one:
                turns = range(min(_BLOCK, count - start))
                done.extend(one.recorded(chooser.choices(names, weights)[0]) for _ in turns)
            if progress:
                print(f"\r{len(done)} of {count}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass  # so far, then
    return done
