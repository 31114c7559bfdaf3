"""The ring as Python sees it: requests out and responses in, as bytes.

A thin typed door to ring.c; no cdata leaves this package. What the bytes mean is the codec's business,
and that every request gets its answer is the source's: here it is only made impossible to
answer what was not asked, or to answer again what the deadline thread has answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import AlreadyAnsweredError, DamagedInputError, NotSupportedError

try:
    from xenintro.xen._native import ffi, lib
except ImportError as error:
    raise NotSupportedError(
        "this installation of xenintro cannot use a ring",
        why=f"its native extension is missing: {error}",
        hint="install the wheel for this platform, or in a source tree: pip install -e .",
    ) from error

if TYPE_CHECKING:
    from mmap import mmap

__all__ = ["Ring", "RingCorruptError", "ffi", "lib"]

# Bound once: a lookup through lib on every request would cost as much as the copy.
_take = lib.xi_ring_take
_put = lib.xi_ring_put
_publish = lib.xi_ring_publish
_claim = lib.xi_ring_claim
_pending = lib.xi_ring_pending
_LATE = lib.XI_RING_LATE
_TAKEN = lib.XI_RING_TAKEN
_unanswered = lib.xi_ring_unanswered


class RingCorruptError(DamagedInputError):
    """The indices on the ring page are impossible; nothing was taken and nothing written."""


class Ring:
    """The monitor's end of one vm_event ring page. One thread uses it, and its `xenintro.xen.guard.Guard`.

    Args:
        page: the shared page: its address, or a writable buffer of at least 4096 bytes
            (a buffer is kept alive and cannot be resized meanwhile; an address must stay mapped).
        slot_size: bytes of a request and of a response.
        nr_slots: a power of two.
        req_cons: requests taken so far, modulo 2**32: not 0 when a ring in use is taken over.
        rsp_prod_pvt: responses written so far, modulo 2**32.

    Attributes:
        after_missed: when the last request was taken, the guard's log had entries (`Guard.missed`).
        native: the C structure, for the guard.

    Raises:
        ValueError: no such ring fits the page, or the indices are further apart than its slots.
    """

    __slots__ = ("_copy", "_page", "_record", "_request", "_slot_size", "after_missed", "native")

    def __init__(
        self,
        page: int | bytearray | memoryview | mmap,
        slot_size: int,
        nr_slots: int,
        *,
        req_cons: int = 0,
        rsp_prod_pvt: int = 0,
    ) -> None:
        if isinstance(page, int):
            self._page = ffi.cast("void *", page)
        else:
            self._page = ffi.from_buffer("uint8_t[]", page, require_writable=True)
            if len(self._page) < lib.XI_RING_PAGE_SIZE:
                raise ValueError(f"a ring page has 4096 bytes, this buffer {len(self._page)}")
        self.native = ffi.new("struct xi_ring *")
        indices = (req_cons, rsp_prod_pvt)
        if lib.xi_ring_attach(self.native, self._page, slot_size, nr_slots, *indices) != 0:
            raise ValueError(
                f"no such ring: {nr_slots} slots of {slot_size} bytes, {req_cons=}, {rsp_prod_pvt=}"
            )
        self.after_missed = False
        self._slot_size = slot_size
        self._request = ffi.new("uint8_t[]", slot_size)
        self._copy = ffi.buffer(self._request)

    def init(self) -> None:
        """Start over: reset the header of the page as Xen's SHARED_RING_INIT does, and the indices.

        Only while the domain is paused: a request that arrives meanwhile is lost.
        """
        lib.xi_ring_init(self.native)

    @property
    def used(self) -> bool:
        """Whether a request was ever answered on it (but for one time in 2**32)."""
        return bool(self.native.rsp_prod_pvt)

    def record(self, memory: memoryview) -> None:
        """Note what is answered from now on in memory that another process shares, and that stays.

        `xenintro.capture.pending` reads it.

        Raises:
            ValueError: too little of it, or slots that are too long.
        """
        if memory.nbytes < ffi.sizeof("struct xi_record"):
            raise ValueError(f"a record has {ffi.sizeof('struct xi_record')} bytes, not {memory.nbytes}")
        # Its address alone is kept: cffi's hold on a buffer crashes where the garbage collector has cleared
        # the memoryview before, which it may in a cycle.
        record = ffi.cast("struct xi_record *", ffi.from_buffer(memory, require_writable=True))
        if lib.xi_ring_record(self.native, record) != 0:
            raise ValueError(f"slots of {self.slot_size} bytes are too long")
        self._record = memory

    def pending(self) -> int:
        """How many requests wait to be taken.

        Raises:
            RingCorruptError: the page says more than the ring can hold.
        """
        count: int = _pending(self.native)
        if count < 0:
            raise self._corrupt()
        return count

    def take(self) -> bytes | None:
        """Take the oldest waiting request: a copy of its slot, or None if there is none.

        Raises:
            RingCorruptError: the page says more requests wait than the ring can hold.
        """
        taken: int = _take(self.native, self._request)
        if taken > 0:
            self.after_missed = taken != _TAKEN
            request: bytes = self._copy[:]
            return request
        if taken == 0:
            return None
        raise self._corrupt()

    def claim(self) -> bool:
        """Ask before an effect that belongs to the next response, for instance a hypercall.

        The guard may answer the request all the same; its log says then that it was claimed. A trap is
        injected with `xenintro.xen.guard.Guard.inject`.

        Returns:
            False if the guard has answered the request: its response will be dropped.
        """
        return bool(_claim(self.native))

    def put(self, response: bytes) -> bool:
        """Write the response to the oldest unanswered slot; Xen sees it after `publish`.

        Returns:
            False if it came too late: the guard has answered, and nothing was written.

        Raises:
            AlreadyAnsweredError: every request taken has its answer.
            ValueError: the response is not exactly one slot long.
        """
        if len(response) != self._slot_size:
            raise ValueError(f"a response has {self._slot_size} bytes, not {len(response)}")
        outcome: int = _put(self.native, response)
        if outcome < 0:
            raise AlreadyAnsweredError(
                "no request is waiting for this response",
                why=f"all requests up to index {self.req_cons:#x} are answered",
                hint="this is a bug in the caller: answer each request once, after taking it",
            )
        in_time: bool = outcome != _LATE
        return in_time

    def publish(self) -> int:
        """Show Xen the responses put so far; notifying it is the caller's business.

        Returns:
            When the guard did that for some of them, in monotonic nanoseconds; 0 if it did not.
        """
        by_guard_ns: int = _publish(self.native)
        return by_guard_ns

    @property
    def unanswered(self) -> int:
        """Requests taken that have no response yet: 0 to `nr_slots`."""
        count: int = _unanswered(self.native)
        return count

    @property
    def dropped(self) -> int:
        """Responses that came too late."""
        count: int = self.native.dropped
        return count

    @property
    def takes(self) -> int:
        """Requests that `take` has given."""
        count: int = self.native.takes
        return count

    @property
    def req_cons(self) -> int:
        """Requests taken, modulo 2**32."""
        index: int = self.native.req_cons
        return index

    @property
    def rsp_prod_pvt(self) -> int:
        """Responses put, published or not, modulo 2**32."""
        index: int = self.native.rsp_prod_pvt
        return index

    @property
    def nr_slots(self) -> int:
        """Slots of the ring, a power of two."""
        count: int = self.native.nr_slots
        return count

    @property
    def slot_size(self) -> int:
        """Bytes of a request and of a response."""
        return self._slot_size

    def _corrupt(self) -> RingCorruptError:
        req_prod: int = self.native.page.req_prod
        room = self.nr_slots - self.unanswered
        return RingCorruptError(
            "the ring page is damaged: nothing was taken from it",
            why=f"req_prod {req_prod:#x} is not within {room} after req_cons {self.req_cons:#x}",
            hint="end what else writes to this page; for a guest that hangs: xenintro rescue --domid ID",
        )
