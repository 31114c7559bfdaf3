"""The control socket: a line of JSON asks, lines of JSON answer. The loop serves it, and never waits here."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from xenintro.errors import DomainBusyError, UsageError, XenintroError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MOST_CLIENTS = 16
_LONGEST_REQUEST = 4096
#: Seconds that a client may take to ask, and to read a short answer.
_PATIENCE = 10.0
#: Bytes kept for a reader of `tail` that is slower than the guest.
_KEPT = 4 << 20
#: Bytes given to the kernel at once: a long backlog must not become a long pause.
_CHUNK = 1 << 16

_encode = msgspec.json.Encoder().encode


def socket_path(name: str) -> Path:
    """Where the socket of a domain's service is.

    Below ``$XENINTRO_RUNTIME_DIR``, else ``/run/xenintro``.
    """
    return Path(os.environ.get("XENINTRO_RUNTIME_DIR") or "/run/xenintro") / name / "control.sock"


def own_socket_path(name: str) -> Path:
    """Where this service is to put it: systemd's directory for it, if there is one."""
    directory = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(directory) / "control.sock" if directory else socket_path(name)


class ControlSocket:
    """A listening socket and its clients.

    Args:
        path: of the socket; its directory is made. Only this user can connect.

    Attributes:
        dropped: lines that readers of `tail` did not get because they read too slowly.

    Raises:
        DomainBusyError: another service listens there.
        UsageError: there can be no socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: list[_Client] = []
        self.dropped = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        mask = os.umask(0o177)
        try:
            _make_room(path, mask)
            self._listener.bind(str(path))
            self._listener.listen(_MOST_CLIENTS)
        except OSError as error:
            self._listener.close()
            raise UsageError(
                f"cannot listen on {path}",
                why=error.strerror or str(error),
                hint="name another directory: XENINTRO_RUNTIME_DIR=DIR xenintro serve ...",
            ) from error
        finally:
            os.umask(mask)

    @property
    def tails(self) -> int:
        """Clients that read events."""
        return sum(client.tailing for client in self._clients)

    def serve(self, answer: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> None:
        """Take and answer what is there. ``answer`` gives None for a client that wants the events."""
        with contextlib.suppress(BlockingIOError):
            while len(self._clients) < _MOST_CLIENTS:
                self._clients.append(_Client(self._listener.accept()[0]))
        for client in list(self._clients):
            try:
                client.serve(answer)
            except OSError:
                self._drop(client)

    def tail(self, lines: list[bytes]) -> None:
        """Give lines to those who want the events."""
        data = b"".join(lines)
        for client in self._clients:
            if client.tailing:
                self.dropped += client.offer(data, len(lines))

    def wait(self, seconds: float, *others: int) -> None:
        """Return when somebody asks something, one of the descriptors is readable, or after a while."""
        poll = select.poll()
        for client in self._clients:
            poll.register(client.socket, select.POLLIN | (select.POLLOUT if client.waits else 0))
        for descriptor in (self._listener.fileno(), *others):
            poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)

    def close(self) -> None:
        """Close everything, and remove the socket."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.flush()
            self._drop(client)
        self._listener.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _drop(self, client: _Client) -> None:
        self._clients.remove(client)
        client.socket.close()


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.tailing = False
        self._asked = bytearray()
        self._kept = bytearray()
        self._answered = False
        self._until = monotonic() + _PATIENCE

    @property
    def waits(self) -> bool:
        return bool(self._kept)

    def serve(self, answer: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> None:
        """Read, answer, write.

        Raises:
            OSError: the client is gone, done, or does not read.
        """
        self._read()
        if not self._answered and b"\n" in self._asked:
            self._answered = True
            reply = _reply(bytes(self._asked), answer)
            self.tailing = reply is None
            if reply is not None:
                self._kept += _encode(reply) + b"\n"
        self.flush()
        done = self._answered and not self._kept
        if not self.tailing and (done or monotonic() > self._until):
            raise ConnectionError("nothing more to say")

    def offer(self, data: bytes, count: int) -> int:
        """Keep lines; returns how many were dropped."""
        if len(self._kept) + len(data) > _KEPT:
            return count
        self._kept += data
        return 0

    def flush(self) -> None:
        """Write what the client takes."""
        with contextlib.suppress(BlockingIOError):
            while self._kept:
                del self._kept[: self.socket.send(self._kept[:_CHUNK])]

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self.socket.recv(_LONGEST_REQUEST)
            if not data and not self._answered:
                raise ConnectionError("it asked nothing")
            if not data and self.tailing:
                raise ConnectionError("it has seen enough")
            self._asked += data
            if len(self._asked) > _LONGEST_REQUEST:
                raise ConnectionError("it asks too much")


def _reply(
    asked: bytes, answer: Callable[[dict[str, Any]], Mapping[str, Any] | None]
) -> Mapping[str, Any] | None:
    try:
        order = msgspec.json.decode(asked.partition(b"\n")[0], type=dict[str, Any])
        return answer(order)
    except msgspec.DecodeError as error:
        wrong: XenintroError = UsageError("not a request", why=str(error))
    except XenintroError as error:
        wrong = error
    return {
        "v": 1,
        "error": {"what": wrong.what, "why": wrong.why, "hint": wrong.hint, "code": wrong.exit_code},
    }


def _make_room(path: Path, mask: int) -> None:
    """A socket that nobody listens on any more is removed."""
    os.umask(mask)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.umask(0o177)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            return
    raise DomainBusyError(
        f"a service for {path.parent.name} runs already",
        why=f"it listens on {path}",
        hint=f"see what it does: xenintro ctl status --name {path.parent.name}",
    )
