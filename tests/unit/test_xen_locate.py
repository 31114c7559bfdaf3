from __future__ import annotations

import pytest

from xenintro.errors import NotSupportedError, NoXenError, UsageError
from xenintro.xen.locate import Location, locate, running_release


@pytest.fixture
def host(tmp_path):
    """Files of a host, by what they say; a minor release of None is a host without Xen."""

    def make(minor=17, capabilities="control_d\n", libraries=()):
        files = {f"usr/lib/xen-4.{n}/lib/x86_64-linux-gnu/libxenctrl.so.4.{n}": "" for n in libraries}
        if minor is not None:
            version = {"type": "xen\n", "version/major": "4\n", "version/minor": f"{minor}\n"}
            files |= {f"sys/hypervisor/{name}": text for name, text in version.items()}
        if capabilities is not None:
            files["proc/xen/capabilities"] = capabilities
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def test_the_library_of_the_running_release_is_chosen_among_others(host):
    root = host(minor=17, libraries=(14, 17, 20))
    path = root / "usr/lib/xen-4.17/lib/x86_64-linux-gnu/libxenctrl.so.4.17"
    assert locate("auto", root) == Location((4, 17), path)


@pytest.mark.parametrize("kind", ["none", "other"])
def test_without_xen_there_are_three_lines_and_exit_code_3(host, kind):
    root = host(minor=None)
    if kind == "other":
        (root / "sys/hypervisor").mkdir(parents=True)
        (root / "sys/hypervisor/type").write_text("kvm\n")
    with pytest.raises(NoXenError, match="not a Xen host") as caught:
        locate("auto", root)
    assert caught.value.exit_code == 3
    assert len(caught.value.lines()) == 3
    assert "xenintro demo" in caught.value.hint
    assert running_release(root) is None


@pytest.mark.parametrize("capabilities", ["", None])
def test_a_guest_is_not_the_control_domain(host, capabilities):
    with pytest.raises(NoXenError, match="not its control domain") as caught:
        locate("auto", host(capabilities=capabilities, libraries=(17,)))
    assert "control_d" in caught.value.why


def test_without_xenfs_the_kernel_may_say_that_it_is_dom0(host):
    root = host(capabilities=None, libraries=(17,))
    flag = root / "sys/hypervisor/start_flags/initdomain"
    flag.parent.mkdir()
    flag.write_text("1\n")
    assert locate("auto", root).release == (4, 17)


def test_a_library_of_another_release_is_refused_and_both_are_named(host):
    with pytest.raises(NotSupportedError, match=r"libxenctrl\.so\.4\.17") as caught:
        locate("auto", host(minor=17, libraries=(14,)))
    assert "4.14" in caught.value.why
    assert "4.17" in caught.value.why
    assert "xen-utils-4.17" in caught.value.hint


def test_no_library_at_all(host):
    with pytest.raises(NotSupportedError, match="not installed") as caught:
        locate("auto", host())
    assert "its tools are not" in caught.value.why


def test_a_release_before_the_monitor_calls_is_refused(tmp_path):
    (tmp_path / "libxenctrl.so.4.5").touch()
    with pytest.raises(NotSupportedError, match=r"4\.5 is too old"):
        locate(str(tmp_path))


def test_a_directory_says_its_release_by_the_name_of_its_library(tmp_path, monkeypatch):
    for name in ("libxenctrl.so", "libxenctrl.so.4.14", "libxenctrl.so.4.14.0", "libxenctrl.so.bak"):
        (tmp_path / name).touch()
    expected = Location((4, 14), tmp_path / "libxenctrl.so.4.14")
    assert locate(str(tmp_path)) == expected
    monkeypatch.chdir(tmp_path)
    assert locate(".") == expected


@pytest.mark.parametrize("names", [(), ("libxenctrl.so.4.14", "libxenctrl.so.4.17")])
def test_a_directory_of_no_or_several_releases_is_a_usage_error(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="not exactly one") as caught:
        locate(str(tmp_path))
    assert all(name in caught.value.why for name in names)


def test_no_such_directory(tmp_path):
    with pytest.raises(UsageError, match="no such directory"):
        locate(str(tmp_path / "nowhere"))
