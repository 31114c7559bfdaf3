"""A reader of xenstored's socket: the names of domains, where there is a xenstore at all."""

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
_READ = 2  # XS_READ
_PAYLOAD_MAX = 4096  # XENSTORE_PAYLOAD_MAX
_TIMEOUT = 1.0  # seconds: a xenstored that hangs must not hold up a monitor
_SOCKETS = ("/run/xenstored/socket", "/var/run/xenstored/socket")


class XenStore:
    """A connection to xenstored, or to nothing: then every value is unknown. Never raises.

    Args:
        path: the socket; default ``$XENSTORED_PATH`` (libxenstore's), then the usual places.
    """

    def __init__(self, path: str | None = None) -> None:
        chosen = path or os.environ.get("XENSTORED_PATH")
        self._socket = next(filter(None, map(_connect, [chosen] if chosen else _SOCKETS)), None)

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
        if self._socket is None:
            return None
        try:
            payload = path.encode() + b"\0"
            self._socket.sendall(_HEADER.pack(_READ, 0, 0, len(payload)) + payload)
            kind, _, _, length = _HEADER.unpack(self._exactly(_HEADER.size))
            if length > _PAYLOAD_MAX:
                raise ConnectionError(f"xenstored announces {length} bytes")
            value = self._exactly(length)
        except OSError:
            self.close()  # what is still to come would be taken for the next answer
            return None
        return value.decode(errors="replace") if kind == _READ else None

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exactly(self, count: int) -> bytes:
        assert self._socket is not None
        received = bytearray()
        while len(received) < count:
            part = self._socket.recv(count - len(received))
            if not part:
                raise ConnectionError("xenstored closed the connection")
            received += part
        return bytes(received)


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
