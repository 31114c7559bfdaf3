from __future__ import annotations

import errno

import pytest

from xenintro import errors
from xenintro.xen import signatures
from xenintro.xen.failures import MEANINGS, failure


@pytest.mark.parametrize(
    ("call", "number", "error", "exit_code"),
    [
        ("xc_interface_open", errno.ENOENT, errors.NoXenError, 3),
        ("xc_interface_open", errno.EACCES, errors.NoXenError, 3),
        ("xenevtchn_open", errno.EACCES, errors.NoXenError, 3),
        ("xc_domain_pause", errno.ESRCH, errors.NoSuchDomainError, 4),
        ("xc_monitor_enable", errno.EBUSY, errors.DomainBusyError, 5),
        ("xc_monitor_enable", errno.EOPNOTSUPP, errors.NotSupportedError, 6),
        ("xc_monitor_enable", errno.ENOSYS, errors.NotSupportedError, 6),
        ("xc_monitor_enable", errno.ENODEV, errors.NotSupportedError, 6),
        ("xc_monitor_enable", errno.ESRCH, errors.NoSuchDomainError, 4),
        ("xc_monitor_disable", errno.EBUSY, errors.ReleaseError, 10),
        ("xc_monitor_disable", errno.EINVAL, errors.XenCallError, 1),
        ("xc_monitor_singlestep", errno.EOPNOTSUPP, errors.NotSupportedError, 6),
        ("xc_monitor_cpuid", errno.EEXIST, errors.XenCallError, 1),
        ("xc_set_mem_access", errno.EINVAL, errors.NotSupportedError, 6),
        ("xc_get_mem_access", errno.ENODEV, errors.XenCallError, 1),
        ("xc_altp2m_create_view", errno.EOPNOTSUPP, errors.NotSupportedError, 6),
        ("xc_domain_debug_control", errno.EOPNOTSUPP, errors.NotSupportedError, 6),
        ("xc_domain_unpause", errno.EINVAL, errors.XenCallError, 1),
        ("xc_domain_pause", errno.EPERM, errors.NoXenError, 3),
        ("xc_vcpu_getinfo", errno.EFAULT, errors.XenCallError, 1),
    ],
)
def test_class_and_exit_code(call, number, error, exit_code):
    found = failure(call, number, 5)
    assert type(found) is error
    assert found.exit_code == exit_code
    assert len(found.lines()) <= 3
    name = "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode[number]
    assert name in str(found.why)
    assert call in " ".join(found.lines())


def test_a_domctl_that_is_not_understood_points_to_the_wrong_library():
    found = failure("xc_monitor_enable", errno.EACCES, 5)
    assert isinstance(found, errors.NoXenError)
    assert "another release" in found.why


def test_the_call_and_its_errno_can_be_looked_at():
    found = failure("xc_monitor_cpuid", errno.EEXIST, 5)
    assert isinstance(found, errors.XenCallError)
    assert (found.call, found.errno) == ("xc_monitor_cpuid", errno.EEXIST)


def test_an_unknown_number_is_still_an_error():
    found = failure("xc_version", 9999)
    assert "errno 9999" in found.why


@pytest.mark.parametrize("call", [*signatures.CALLS, "munmap"])
def test_every_text_of_the_table_can_be_filled_in(call):
    numbers = {number for _, rows in MEANINGS for number in rows} | {errno.EFAULT, 0}
    for number in numbers:
        text = "\n".join(failure(call, number, 5).lines())
        assert "{" not in text
        assert "}" not in text
