"""What an expression remembers from one event to the next: bounded, whatever the guest does."""

from __future__ import annotations

from collections import OrderedDict, deque

#: vCPUs of which something is kept; Xen has fewer in a domain.
MAX_VCPUS = 1024
#: Times that one `seen` keeps, over all its keys.
MAX_TIMES = 1 << 16


class Last:
    """The last value of a field on each vCPU."""

    def __init__(self) -> None:
        self._values: dict[int, int | str | bool] = {}

    def exchange(self, vcpu_id: int, value: int | str | bool | None) -> int | str | bool | None:
        """Keep a value, and give the one before; what is absent is not kept."""
        values = self._values
        before = values.get(vcpu_id)
        if value is not None:
            if before is None and len(values) >= MAX_VCPUS:
                values.clear()
            values[vcpu_id] = value
        return before

    def clear(self) -> None:
        """Forget."""
        self._values.clear()


class Rate:
    """Counts how often a place is reached.

    Args:
        count: it is reached often if it was this many times...
        window_ns: ...within this.
    """

    def __init__(self, count: int, window_ns: int) -> None:
        self._count = count
        self._window_ns = window_ns
        self._times: deque[int] = deque(maxlen=count)
        self._by_key: OrderedDict[int | str | bool, deque[int]] = OrderedDict()
        self._kept = 0

    def hit(self, now_ns: int) -> bool:
        """It is reached now: whether that is often."""
        return self._often(self._times, now_ns)

    def hit_by(self, now_ns: int, key: int | str | bool | None) -> bool:
        """The same for one value; for an absent one it never is."""
        if key is None:
            return False
        times = self._by_key.pop(key, None)
        if times is None:
            times = deque(maxlen=self._count)
        self._by_key[key] = times
        self._kept -= len(times)
        often = self._often(times, now_ns)
        self._kept += len(times)
        while self._kept > MAX_TIMES:  # the values that were not met for the longest time go first
            self._kept -= len(self._by_key.popitem(last=False)[1])
        return often

    def _often(self, times: deque[int], now_ns: int) -> bool:
        if (
            times and now_ns < times[-1]
        ):  # another recording, or a clock that was set: what was counted is void
            times.clear()
        times.append(now_ns)
        return len(times) == self._count and now_ns - times[0] <= self._window_ns

    def clear(self) -> None:
        """Forget."""
        self._times.clear()
        self._by_key.clear()
        self._kept = 0
