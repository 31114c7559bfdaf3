from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest

from xenintro.xen.xenstore import XenStore, own_domid

HEADER = struct.Struct("=IIII")
READ, ERROR = 2, 16


@pytest.fixture
def xenstored(tmp_path, monkeypatch):
    """A xenstored with these nodes; `raw` is what it says to every request instead."""
    path = str(tmp_path / "socket")
    monkeypatch.setenv("XENSTORED_PATH", path)
    threads = []

    def start(nodes=None, raw=None):
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(1)
        thread = threading.Thread(target=serve, args=(server, nodes or {}, raw))
        thread.start()
        threads.append(thread)

    def serve(server, nodes, raw):
        with server, contextlib.suppress(ConnectionError):
            connection, _ = server.accept()
            with connection:
                while head := connection.recv(HEADER.size, socket.MSG_WAITALL):
                    kind, _, _, length = HEADER.unpack(head)
                    node = connection.recv(length, socket.MSG_WAITALL)
                    assert (kind, node[-1:]) == (READ, b"\0")
                    connection.sendall(raw if raw is not None else reply(nodes.get(node[:-1])))
                    if raw is not None:
                        return

    def reply(value):
        kind, payload = (ERROR, b"ENOENT\0") if value is None else (READ, value)
        return HEADER.pack(kind, 0, 0, len(payload)) + payload

    yield start
    for thread in threads:
        thread.join()


def test_read(xenstored):
    xenstored({b"/local/domain/1/name": b"tiny", b"/local/domain/2/name": b"\xff"})
    with XenStore() as store:
        assert store.read("/local/domain/1/name") == "tiny"
        assert store.read("/local/domain/3/name") is None
        assert store.read("/local/domain/2/name") == "\ufffd"


def test_the_own_domain(xenstored):
    xenstored({b"domid": b"7"})
    assert own_domid() == 7


def test_without_xenstore_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "none"))
    assert own_domid() == 0
    with XenStore() as store:
        assert store.read("/local/domain/1/name") is None


@pytest.mark.parametrize(
    "raw",
    [b"", b"short", HEADER.pack(READ, 0, 0, 4), HEADER.pack(READ, 0, 0, 1 << 31) + b"x" * 64],
    ids=["nothing", "half a header", "no payload", "too long"],
)
def test_a_broken_xenstored_is_no_xenstored(xenstored, raw):
    xenstored(raw=raw)
    with XenStore() as store:
        assert store.read("/local/domain/1/name") is None
        assert store.read("/local/domain/1/name") is None


WATCH, EVENT = 4, 15


def message(kind, *words):
    payload = "".join(f"{word}\0" for word in words).encode()
    return HEADER.pack(kind, 0, 0, len(payload)) + payload


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """A store, and the other end of its connection."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        with XenStore(path) as store:
            connection, _ = server.accept()
            with connection:
                yield store, connection


def test_watches_are_told_without_waiting(pair):
    store, xenstored = pair
    xenstored.sendall(message(WATCH, "OK") + message(EVENT, "@releaseDomain", "mine"))
    assert store.watch("@releaseDomain", "mine")
    assert xenstored.recv(100) == message(WATCH, "@releaseDomain", "mine")
    assert store.events() == [("@releaseDomain", "mine")]
    assert store.events() == []
    assert store.fileno() is not None


def test_a_watch_that_fires_before_an_answer_is_kept(pair):
    store, xenstored = pair
    value = HEADER.pack(READ, 0, 0, 4) + b"tiny"
    xenstored.sendall(message(EVENT, "/a", "t") + value + message(EVENT, "/a/b", "t"))
    assert store.read("/x") == "tiny"
    assert store.events() == [("/a", "t"), ("/a/b", "t")]


def test_events_come_in_any_pieces(pair):
    store, xenstored = pair
    seen = []
    for byte in message(EVENT, "@releaseDomain", "") * 2:
        xenstored.sendall(bytes([byte]))
        seen += store.events()
    assert seen == [("@releaseDomain", "")] * 2


def test_a_xenstored_that_goes_away_leaves_no_descriptor(pair):
    store, xenstored = pair
    xenstored.sendall(message(EVENT, "/a", "t") + b"half")
    xenstored.close()
    assert store.events() == [("/a", "t")]
    assert store.fileno() is None
    assert store.events() == []
    assert not store.watch("/a")


def test_a_refused_watch(pair):
    store, xenstored = pair
    xenstored.sendall(message(ERROR, "EINVAL"))
    assert not store.watch("nonsense")
    assert store.fileno() is not None
