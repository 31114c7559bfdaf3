"""Packets between client.c and the simulated hypervisor: one call, one reply, maybe a descriptor."""

from __future__ import annotations

import array
import socket
import struct
from typing import NamedTuple

#: struct request and struct reply of client.c.
REQUEST = struct.Struct("=36si8Q")
REPLY = struct.Struct("=qiI")
#: A port, as /dev/xen/evtchn reads and writes it.
PORT = struct.Struct("=I")

#: No packet is longer: what a SOCK_SEQPACKET socket takes by default.
LONGEST = 212_992


class Result(NamedTuple):
    """What a call gives back.

    Attributes:
        value: the C function's return value.
        out: bytes for the pointer argument.
        fd: a descriptor for the client, or None; the caller keeps its own.
    """

    value: int = 0
    out: bytes = b""
    fd: int | None = None


def parse(packet: bytes) -> tuple[str, int, tuple[int, ...], bytes]:
    """The name, the caller's process, the raw arguments and the data of a call."""
    name, pid, *args = REQUEST.unpack_from(packet)
    return name.rstrip(b"\0").decode("ascii", "replace"), pid, tuple(args), packet[REQUEST.size :]


def send(connection: socket.socket, result: Result, error: int = 0) -> None:
    """Answer a call. A client that went away meanwhile is noticed when its socket is read."""
    packet = REPLY.pack(result.value, error, len(result.out)) + result.out
    try:
        if result.fd is None:
            connection.send(packet)
        else:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [result.fd]))
            connection.sendmsg([packet], [rights])
    except OSError:
        pass  # gone: the server's loop finds the socket closed and forgets the client
