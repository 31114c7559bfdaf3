"""The near end of the packer: asked while a guest waits, so it never waits itself."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from xenintro.capture.packer import Done, Order

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger(__name__)

#: Seconds between two looks at whether it is still waited for.
_LOOK = 0.1


class Packing:
    """A process that compresses and removes files, started now and ended by `abandon`.

    It is another program, not a fork: nothing of the ring, no handle of libxc is in it.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "xenintro.capture.packer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may outlive us, and who reads ours would wait for it
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asks, self._says = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._asks, False)
        os.set_blocking(self._says, False)
        self._unsent = bytearray()
        self._heard = b""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, path: Path, to: Path | None = None) -> None:
        """Compress a file into another, or remove it; in the order of asking."""
        order = Order(str(path.absolute()), None if to is None else str(to.absolute()))
        self._unsent += msgspec.json.encode(order) + b"\n"
        self._send()

    def turn(self) -> list[Done]:
        """Send what was not sent yet, and give what was done; now and then, at least."""
        self._send()
        data = b""
        with suppress(BlockingIOError):
            data = os.read(self._says, 1 << 16)
        return self._done(data)

    def finish(self, patience: float | None, given_up: Callable[[], bool]) -> list[Done]:
        """Wait until all is done; what was done since `turn` was called last.

        Args:
            patience: seconds to wait at most.
            given_up: asked now and then whether to wait no longer.
        """
        with suppress(OSError):  # no guest waits any more: it need not stand behind everybody else
            os.setpriority(os.PRIO_PROCESS, self._process.pid, 0)
        until = None if patience is None else monotonic() + patience

        def comes(fd: int, what: int) -> bool:
            while not given_up():
                left = _LOOK if until is None else min(_LOOK, until - monotonic())
                if ready := _ready(fd, what, max(0.0, left)):
                    return bool(ready & what)
                if left <= 0:
                    break
            return False

        done = self.turn()
        while self._unsent and comes(self._asks, select.POLLOUT):
            done += self.turn()
        assert self._process.stdin is not None
        self._process.stdin.close()
        while comes(self._says, select.POLLIN) and (data := os.read(self._says, 1 << 16)):
            done += self._done(data)
        return done

    def _send(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._asks, self._unsent)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            _log.warning("the process that compresses captures was killed: they stay as they are")
            self._unsent.clear()

    def abandon(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _done(self, data: bytes) -> list[Done]:
        *lines, self._heard = (self._heard + data).split(b"\n")
        done = [msgspec.json.decode(line, type=Done) for line in lines]
        for one in done:
            if one.error:
                _log.warning("cannot %s %s: %s", "compress" if one.to else "remove", one.path, one.error)
        return done


def _ready(fd: int, what: int, seconds: float) -> int:
    """What a pipe is ready for, or that it is broken; 0 if nothing comes in so many seconds."""
    poll = select.poll()
    poll.register(fd, what)
    ready = poll.poll(seconds * 1000)
    return ready[0][1] if ready else 0
