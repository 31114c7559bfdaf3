"""A reader of xenstored's socket: names of domains, and watches, where there is a xenstore at all."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: struct xsd_sockmsg (xen/io/xs_wire.h): type, req_id, tx_id, length of what follows.
_HEADER = struct.Struct("=IIII")
_READ, _WATCH, _WATCH_EVENT, _IS_INTRODUCED = 2, 4, 15, 17  # XS_READ, ..., XS_IS_DOMAIN_INTRODUCED
_PAYLOAD_MAX = 4096  # XENSTORE_PAYLOAD_MAX
_TIMEOUT = 1.0  # seconds: a xenstored that hangs must not hold up a monitor
#: Watch these to learn that some domain was destroyed, crashed, shut down or was suspended; that one is new.
DOMAIN_GONE, DOMAIN_MADE = "@releaseDomain", "@introduceDomain"

_SOCKETS = ("/run/xenstored/socket", "/var/run/xenstored/socket")


class XenStore:
    """A connection to xenstored, or to nothing: then every value is unknown. Never raises.

    Args:
        path: the socket; default ``$XENSTORED_PATH`` (libxenstore's), then the usual places.
    """

    def __init__(self, path: str | None = None) -> None:
        chosen = path or os.environ.get("XENSTORED_PATH")
        self._socket = next(filter(None, map(_connect, [chosen] if chosen else _SOCKETS)), None)
        self._received = bytearray()
        self._events: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, path: str) -> str | None:
        """The value of a node (``/local/domain/1/name``), or None where it is not known."""
        kind, value = self._ask(_READ, path)
        return value.decode(errors="replace") if kind == _READ else None

    def introduced(self, domid: int) -> bool | None:
        """Whether the toolstack has built the domain; None where that is not known."""
        kind, value = self._ask(_IS_INTRODUCED, str(domid))
        return value[:1] == b"T" if kind == _IS_INTRODUCED else None

    def watch(self, path: str, token: str = "") -> bool:
        """Let `events` tell of changes at and below a node, or of `DOMAIN_GONE`; False if that cannot be.

        Every watch fires once to begin with.
        """
        return self._ask(_WATCH, path, token)[0] == _WATCH

    def fileno(self) -> int | None:
        """The file descriptor to poll for input before `events`; None once xenstored is away."""
        return None if self._socket is None else self._socket.fileno()

    def events(self) -> list[tuple[str, str]]:
        """The (path, token) of every watch that has fired since the last time; never waits.

        Look here once before polling: what came along with an answer was read with it.
        """
        while self._socket is not None:
            try:
                while self._message() is not None:
                    pass  # an answer that nobody waits for any more
                self._socket.settimeout(0)
                self._take(self._socket.recv(_PAYLOAD_MAX))
            except BlockingIOError:
                break
            except OSError:
                self.close()
        fired, self._events = self._events, []
        return fired

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, kind: int, *words: str) -> tuple[int | None, bytes]:
        """A request and its answer; watches that fire meanwhile are kept for `events`."""
        if self._socket is None:
            return None, b""
        try:
            self._socket.settimeout(_TIMEOUT)
            payload = "".join(f"{word}\0" for word in words).encode()
            self._socket.sendall(_HEADER.pack(kind, 0, 0, len(payload)) + payload)
            while (answer := self._message()) is None:
                self._take(self._socket.recv(_PAYLOAD_MAX))
        except OSError:
            self.close()  # what is still to come would be taken for the next answer
            return None, b""
        return answer

    def _take(self, part: bytes) -> None:
        if not part:
            raise ConnectionError("xenstored closed the connection")
        self._received += part

    def _message(self) -> tuple[int, bytes] | None:
        """The next answer among what was received, if all of it has come."""
        while len(self._received) >= _HEADER.size:
            kind, _, _, length = _HEADER.unpack_from(self._received)
            if length > _PAYLOAD_MAX:
                raise ConnectionError(f"xenstored announces {length} bytes")
            end = _HEADER.size + length
            if len(self._received) < end:
                break
            payload = bytes(self._received[_HEADER.size : end])
            del self._received[:end]
            if kind != _WATCH_EVENT:
                return kind, payload
            path, _, token = payload.rstrip(b"\0").decode(errors="replace").partition("\0")
            self._events.append((path, token))
        return None


def own_domid() -> int:
    """The domain that this process runs in: what xenstore says, else 0, the control domain."""
    with XenStore() as store:
        value = store.read("domid") or ""
    return int(value) if value.isdecimal() else 0


def _connect(path: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_TIMEOUT)
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection
