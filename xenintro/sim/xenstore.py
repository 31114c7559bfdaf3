"""A xenstored that knows the domains' names and no more (public/io/xs_wire.h)."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xenintro.sim.machine import Machine

_HEADER = struct.Struct("=IIII")  # type, req_id, tx_id, len

_DIRECTORY, _READ, _WATCH, _UNWATCH, _START, _END = 1, 2, 4, 5, 6, 7
_DOMAIN_PATH, _WATCH_EVENT, _ERROR, _IS_INTRODUCED, _RESET_WATCHES = 10, 15, 16, 17, 21
_OK = b"OK\0"


class Xenstore:
    """The tree below /local/domain, read-only."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._sessions: list[Session] = []
        self._seen = (0, 0)
        self._tree = self.tree()

    def open(self, connection: socket.socket) -> Session:
        """A new client."""
        session = Session(self, connection)
        self._sessions.append(session)
        return session

    def close(self, session: Session) -> None:
        """A client went away."""
        self._sessions.remove(session)
        session.connection.close()

    def look(self) -> None:
        """Fire the watches for what has happened since the last time."""
        machine = self._machine
        happened = machine.deaths, machine.births
        if happened == self._seen:
            return
        before, self._tree = self._tree, self.tree()
        special = ("@releaseDomain", "@introduceDomain")
        paths = [path for path, now, then in zip(special, happened, self._seen, strict=True) if now != then]
        paths += sorted({node for node, _ in before.items() ^ self._tree.items()})
        self._seen = happened
        for session in self._sessions:
            for path in paths:
                session.fire(path)

    def tree(self) -> dict[str, str]:
        """Every node with its value."""
        nodes: dict[str, str] = {}
        for domid, domain in self._machine.domains.items():
            if domain.dying:
                continue
            home = f"/local/domain/{domid}"
            nodes[f"{home}/name"] = domain.name
            nodes[f"{home}/domid"] = str(domid)
            nodes[f"{home}/vm"] = f"/vm/{domain.uuid}"
            nodes[f"/vm/{domain.uuid}/name"] = domain.name
            nodes[f"/vm/{domain.uuid}/uuid"] = str(domain.uuid)
        return nodes


class Session:
    """One client's connection."""

    def __init__(self, store: Xenstore, connection: socket.socket) -> None:
        self.connection = connection
        self._store = store
        self._buffer = b""
        self._watches: list[tuple[str, str]] = []

    def serve(self) -> bool:
        """Answer what has arrived; False when the client is gone."""
        try:
            data = self.connection.recv(65536)
        except OSError:
            return False
        if not data:
            return False
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, request, transaction, length = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < _HEADER.size + length:
                break
            body = self._buffer[_HEADER.size : _HEADER.size + length]
            self._buffer = self._buffer[_HEADER.size + length :]
            self._answer(kind, request, transaction, body)
        return True

    def fire(self, path: str) -> None:
        """Tell the client that a watched path changed."""
        for watched, token in self._watches:
            if watched == path or path.startswith(f"{watched.rstrip('/')}/"):
                self._send(_WATCH_EVENT, 0, 0, f"{path}\0{token}\0".encode())

    def _send(self, kind: int, request: int, transaction: int, body: bytes) -> None:
        with contextlib.suppress(OSError):
            # A client that does not read loses what it does not take: nobody else may wait for it.
            packet = _HEADER.pack(kind, request, transaction, len(body)) + body
            self.connection.send(packet, socket.MSG_DONTWAIT)

    def _answer(self, kind: int, request: int, transaction: int, body: bytes) -> None:
        words = body.rstrip(b"\0").decode("ascii", "replace").split("\0")
        if kind == _READ:
            value = self._store.tree().get(words[0])
            reply = b"ENOENT\0" if value is None else value.encode()
            self._send(_ERROR if value is None else kind, request, transaction, reply)
        elif kind == _DIRECTORY:
            children = _children(self._store.tree(), words[0].rstrip("/"))
            reply = b"".join(f"{child}\0".encode() for child in children)
            self._send(kind if children else _ERROR, request, transaction, reply or b"ENOENT\0")
        elif kind in (_WATCH, _UNWATCH):
            self._watch(kind, request, (words[0], words[1] if len(words) > 1 else ""))
        elif kind == _START:
            self._send(kind, request, transaction, b"1\0")
        elif kind in (_END, _RESET_WATCHES):
            self._send(kind, request, transaction, _OK)
        elif kind == _DOMAIN_PATH:
            self._send(kind, request, transaction, f"/local/domain/{words[0]}\0".encode())
        elif kind == _IS_INTRODUCED:
            known = f"/local/domain/{words[0]}/name" in self._store.tree()
            self._send(kind, request, transaction, b"T\0" if known else b"F\0")
        else:
            self._send(_ERROR, request, transaction, b"EACCES\0")

    def _watch(self, kind: int, request: int, watch: tuple[str, str]) -> None:
        if kind == _UNWATCH and watch in self._watches:
            self._watches.remove(watch)
            self._send(kind, request, 0, _OK)
            return
        if kind == _UNWATCH or watch in self._watches:
            self._send(_ERROR, request, 0, b"ENOENT\0" if kind == _UNWATCH else b"EEXIST\0")
            return
        self._watches.append(watch)
        self._send(kind, request, 0, _OK)
        # A watch fires once when it is set.
        self._send(_WATCH_EVENT, 0, 0, f"{watch[0]}\0{watch[1]}\0".encode())


def _children(tree: dict[str, str], path: str) -> list[str]:
    prefix = f"{path}/"
    return sorted({node[len(prefix) :].split("/")[0] for node in tree if node.startswith(prefix)})
