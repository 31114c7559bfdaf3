"""Runs in dom0: programs in turn on one guest, and what an event costs the guest under each.

The guest notes how long each of its instructions took (kinds.S: bench-*); this reads its notes.
"""

from __future__ import annotations

import ctypes
import json
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable


class Notes:
    """The guest's own measurements, mapped from its memory."""

    def __init__(self, domid: int, address: int, samples: int) -> None:
        library = ctypes.CDLL("libxenforeignmemory.so.1", use_errno=True)
        library.xenforeignmemory_open.restype = ctypes.c_void_p
        library.xenforeignmemory_map.restype = ctypes.c_void_p
        pages = (8 + 4 * samples + 4095) // 4096
        gfns = (ctypes.c_uint64 * pages)(*range(address >> 12, (address >> 12) + pages))
        errors = (ctypes.c_int * pages)()
        handle = ctypes.c_void_p(library.xenforeignmemory_open(None, 0))
        base = library.xenforeignmemory_map(handle, domid, 1, ctypes.c_size_t(pages), gfns, errors)
        if not base or any(errors):
            raise OSError(ctypes.get_errno(), "the guest's memory cannot be mapped")
        self._samples = samples
        self._bytes = (ctypes.c_char * (8 + 4 * samples)).from_address(base)

    def count(self) -> int:
        """Instructions timed so far."""
        return int(struct.unpack_from("<Q", self._bytes)[0])

    def last(self, count: int) -> list[int]:
        """The most recent times, in TSC ticks."""
        end = self.count()
        wanted = range(max(0, end - min(count, self._samples)), end)
        return [struct.unpack_from("<I", self._bytes, 8 + 4 * (index % self._samples))[0] for index in wanted]


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended by itself")
        time.sleep(0.02)


def measure(notes: Notes, command: list[str], events: int) -> dict[str, float]:
    """Run one program until the guest has had so many events under it."""
    unwatched = notes.count()
    _until(lambda: notes.count() - unwatched >= 64)
    idle = statistics.median(notes.last(64))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # It is attached once an instruction takes several times as long as before.
        _until(lambda: statistics.median(notes.last(32)) > 3 * idle, process)
        first, started = notes.count(), time.monotonic()
        _until(lambda: notes.count() - first >= events, process)
        took, count = time.monotonic() - started, notes.count() - first
        times = sorted(notes.last(count))
        process.send_signal(signal.SIGINT)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return {"idle": idle, "rate": count / took, "p50": p50, "p99": p99}


def main(request: str) -> None:
    """Measure what the JSON request asks for; the results go to stdout, one line per run."""
    asked = json.loads(request)
    notes = Notes(asked["domid"], asked["address"], asked["samples"])
    for _ in range(asked["rounds"]):
        for name, command in asked["programs"].items():
            result = measure(notes, command, asked["events"])
            print(json.dumps({"program": name, **result}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
