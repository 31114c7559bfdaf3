from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.contract.fake_xen import HANDLE, FakeXen
from xenintro.errors import NoXenError, XenCallError
from xenintro.xen.evtchn import EventChannel


@pytest.fixture(params=[(4, 6), (4, 7), (4, 22)], ids=lambda release: "{}.{}".format(*release))
def xen(request):
    return FakeXen(request.param)


@pytest.fixture
def bell(xen):
    """A file descriptor as the event channel device's: writing to it is Xen ringing."""
    old = xen.release == (4, 6)
    xen.prefix = "xc_evtchn_" if old else "xenevtchn_"
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    xen.answers |= {
        xen.prefix + "fd": descriptor,
        xen.prefix + "bind_interdomain": 7,
        xen.prefix + "pending": lambda _: os.eventfd_read(descriptor) and 7,
    }
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def channel(xen, bell):
    channel = EventChannel(xen.library())
    xen.calls.clear()
    return channel


def test_bind_notify_close(xen, channel):
    assert channel.bind(5, 42) == 7
    channel.notify()
    channel.close()
    channel.close()
    names = [(call[0].removeprefix(xen.prefix), *call[1:]) for call in xen.calls]
    assert names == [("bind_interdomain", 5, 42), ("notify", 7), ("unbind", 7), ("close",)]


def test_pending_never_waits(xen, bell, channel):
    channel.bind(5, 42)
    assert channel.pending() is None
    os.eventfd_write(bell, 1)
    assert channel.pending() == 7
    assert channel.pending() is None
    channel.unmask(7)
    assert xen.calls[-1] == (xen.prefix + "unmask", 7)


def test_an_unbound_channel_is_only_closed(xen, channel):
    with channel:
        pass
    assert xen.calls == [(xen.prefix + "close",)]


def test_a_channel_that_does_not_unbind_is_closed_all_the_same(xen, channel):
    channel.bind(5, 42)
    xen.answers[xen.prefix + "unbind"] = (-1, errno.EINVAL)
    channel.close()
    assert xen.calls[-1] == (xen.prefix + "close",)


def test_a_device_that_does_not_open_says_why(xen, bell):
    xen.answers[xen.prefix + "open"] = (0, errno.EACCES)
    with pytest.raises(NoXenError, match="/dev/xen/evtchn"):
        EventChannel(xen.library())


def test_a_port_that_cannot_be_bound_names_the_domain(xen, channel):
    xen.answers[xen.prefix + "bind_interdomain"] = (-1, errno.EINVAL)
    with pytest.raises(XenCallError, match="domain 5"):
        channel.bind(5, 42)


def test_the_notify_target_is_three_numbers(xen, channel):
    channel.bind(5, 42)
    target = channel.notify_target()
    assert target.function > 0
    assert (target.handle, target.port) == (HANDLE, 7)


def test_a_forked_child_does_not_keep_the_port_bound(xen, bell, channel):
    channel.bind(5, 42)
    child = os.fork()
    if child == 0:
        os._exit(0 if Path(f"/proc/self/fd/{bell}").samefile(os.devnull) else 1)
    assert os.waitpid(child, 0)[1] == 0
    os.eventfd_write(bell, 1)
    assert channel.pending() == 7


def test_what_a_closed_channel_had_is_none_of_its_business(xen, bell, channel):
    channel.close()
    child = os.fork()
    if child == 0:
        os._exit(1 if Path(f"/proc/self/fd/{bell}").samefile(os.devnull) else 0)
    assert os.waitpid(child, 0)[1] == 0
