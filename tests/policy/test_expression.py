"""Conditions: what they mean."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.policy.events import GUEST, answered, holds, make_event
from xenintro.policy.language.expression import compile_expression, compile_filter

NAMES = {
    "syscall_msrs": ["LSTAR", "cstar", 0x176],
    "idt": ["0x1000-0x1fff", "0x3000"],
    "many": [*range(0, 100, 10), "200-299", "400-499", "600-699", "800-899"],
    "nothing": [],
    "limit": 16,
}
LSTAR = make_event(
    "mov_to_msr",
    payload={"msr": 0xC0000082, "new_value": 0x81, "old_value": 0x3},
    registers={"rip": 0xFFFF800000001000, "cr3": 0x2000, "ss": 0x60 << 20, "cs": 0xA9BFFFFF},
    vcpu_id=2,
    paused=True,
)
OLD_LSTAR = make_event("mov_to_msr", "vm_event-1", payload={"msr": 0xC0000082, "value": 0x81})
WRITE = make_event(
    "mem_access", payload={"gfn": 0x1005, "offset": 0x10, "gla": 0x5010, "flags": 0b1010}, vcpu_id=1
)
CR4 = make_event("write_ctrlreg", payload={"index": 2, "new_value": 0x20, "old_value": 1 << 20 | 0x20})


@pytest.mark.parametrize(
    "text",
    [
        *(
            "msr == 0xc0000082",
            "msr == LSTAR",
            'msr == "LSTAR"',
            'register == "lstar"',
            'register == "LSTAR"',
        ),
        *("register == LSTAR", 'register == "0xc0000082"', "msr in syscall_msrs", "msr in [STAR, LSTAR]"),
        *('msr in ("efer", "lstar")', "msr not in (STAR,)", "msr not in nothing", "not msr in nothing"),
        *("mov_to_msr.msr == LSTAR", "rip == regs.rip", "regs.rip >> 47 == 0x1ffff", "vcpu_id == 2"),
        *("0 < new_value < 0x100", "0x81 == new_value", "new_value & 0x80 != 0", "old_value | 0x80 == 0x83"),
        *("new_value ^ old_value == 0x82", "new_value - old_value == 126", "old_value - new_value < 0"),
        *("new_value * 2 == 0x102", "new_value // old_value == 43", "new_value % old_value == 0"),
        *("new_value << 8 == 0x8100", "-new_value == -129", "new_value & ~old_value == 0x80", "1 == 1"),
        *(
            "changed()",
            "changed(2)",
            "not changed(1)",
            "turned_on(0x80)",
            "turned_off(2)",
            "not turned_on(2)",
        ),
        *("bit(new_value, 7)", "not bit(new_value, 1)", "bits(new_value, 0x81)", "not bits(new_value, 3)"),
        *(
            "cpl() == 3",
            "cs.limit == 0xfffff",
            "regs.cs.ar == 0xa9b",
            "has(rip)",
            "not has(dr6)",
            "domid == 7",
        ),
        *('domain == "tiny"', 'reason == "mov_to_msr"', 'abi == "vm_event-7"', 'arch in ("x86_64", "arm64")'),
        *(
            "flags.vcpu_paused",
            "not flags.deny",
            "flags.vcpu_paused == True",
            "not has(pc)",
            "altp2m_idx == 0",
        ),
        *("new_value in many or new_value == 0x81", "new_value > limit", "not\n (new_value\n == 1)"),
        *(
            "False or True and not False",
            "has(old_value) and old_value < new_value < 0x82",
            "'\\x41' == \"A\"",
        ),
    ],
)
def test_true(text: str) -> None:
    assert holds(text, LSTAR, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        *("old_value == 0", "old_value != 0", "old_value < 5", "old_value >= 0", "old_value == new_value"),
        *("0 == old_value", "old_value + 1 == 1", "old_value + 1 != 1", "-old_value < 0", "changed()"),
        *("changed(1)", "turned_on(1)", "old_value in (0, 1)", "old_value not in (0, 1)", "has(old_value)"),
        *(
            'old_value in ("0-5",)',
            'old_value not in ("0-5",)',
            "old_value not in many",
            "prev(old_value) == 0",
        ),
        *("new_value // old_value == 0", "new_value // (new_value - 0x81) == 0", "0 < old_value < 5"),
        *(
            "old_value == old_value",
            "pc == dr7",
            "cpl() == 0",
            "cpl() != 0",
            "cs.ar == 0",
            "dr7 == 0",
            "pc == 0",
            "altp2m_idx != 0",
            "bit(old_value, 0)",
        ),
    ],
)
def test_what_is_absent_compares_with_nothing(text: str) -> None:
    assert not holds(text, OLD_LSTAR, NAMES)
    assert holds(f"not ({text})", OLD_LSTAR, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        *("access.w and gfn in idt", "access.w and not access.r and not access.x", 'access == "w"'),
        *('gfn in pages("0x1000-0x1fff", 7)', "gfn in pages(idt)", "gfn not in pages(0x1004, 0x1006)"),
        *("gla >> 12 == 5", "gla_valid and not fault_in_gpt", "mem_access.flags == 10", "offset in range16"),
        *("gfn not in many", "gfn - 0x1000 in (5,)", 'gfn in ("1-2", "4-5", "7-8", "0x1005", "0x2000")'),
        "not flags.vcpu_paused",
    ],
)
def test_pages(text: str) -> None:
    assert holds(text, WRITE, NAMES | {"range16": ["0-0x10"]})


def test_bits_of_control_registers() -> None:
    assert holds('register == "cr4" and turned_off(CR4_SMEP | CR4_SMAP)', CR4)
    assert not holds('register == "cr0" or turned_off(CR4_SMAP)', CR4)
    assert holds("register in ('cr0', 'CR4')", CR4)


def test_privilege_level_of_old_interfaces() -> None:
    user = make_event("mem_access", "vm_event-3", registers={"cs_arbytes": 0xFB})
    assert holds("cpl() == 3", user)
    assert not holds("has(cpl())", make_event("mem_access", "vm_event-7", "arm64"))


def test_arm() -> None:
    event = make_event("privileged_call", arch="arm64", registers={"pc": 0x1000})
    assert holds("pc == 0x1000 and not has(rip)", event)


def test_words_that_python_keeps_for_itself() -> None:
    out = make_event("io_instruction", payload={"in": 1, "port": 0x3F8, "bytes": 1})
    assert holds("io_instruction.in == 1 and io_instruction . in == 1 and port == 0x3f8 and str == 0", out)
    assert holds("domain != 'a.in b'", out)
    assert compile_expression("domain == '.in'", None)(out, SimpleNamespace(domid=1, name=".in"))


def test_plain_names_mean_in_a_filter_what_they_mean_in_a_rule() -> None:
    fault = make_event("interrupt", payload={"vector": 14, "cr2": 0x5000}, registers={"cr2": 0x6000})
    assert holds("cr2 == 0x5000 and regs.cr2 == 0x6000", fault)
    assert holds("cr2 == 0x6000", make_event("cpuid", registers={"cr2": 0x6000}))
    exit_ = make_event("vmexit", payload={"reason": 10})
    assert holds('vmexit.reason == 10 and reason == "vmexit"', exit_)


def test_a_filter_knows_what_became_of_the_event() -> None:
    class Rule:
        name, level, tags = "freeze", "critical", ("T1014",)

    denied = answered(LSTAR, rule=Rule(), would="deny", late=True)
    one = compile_filter(
        'answer == "allow" and would == "deny" and rule == "freeze" and level == "critical" and late'
        ' and "T1014" in tags and "x" not in tags and pause_ns == 1000 and mem_access.gfn != 5 or False'
    )
    assert not one(denied, GUEST)
    assert compile_filter(one.text.replace("mem_access.gfn != 5", "not mem_access.gfn == 5"))(denied, GUEST)
    nobody = answered(WRITE)
    for text in ("has(rule)", "has(would)", "has(level)", "'T1014' in tags", "has(pause_ns)", "late"):
        assert not compile_filter(text)(nobody, GUEST)
    assert compile_filter("'T1014' not in tags")(nobody, GUEST)


def test_of_several_kinds_of_events() -> None:
    one = compile_filter("write_ctrlreg.new_value == 0x20 or mem_access.gfn in pages('0x1000-0x1fff')")
    assert [one(answered(event), GUEST) for event in (CR4, WRITE, LSTAR)] == [True, True, False]
    assert one.fields == ("write_ctrlreg.new_value", "mem_access.gfn")


def test_prev_is_of_the_same_vcpu() -> None:
    one = compile_expression("prev(new_value) == 5", "mov_to_msr")
    values = [(0, 5), (1, 6), (0, 7), (1, 5), (0, 5), (1, 1)]
    events = [make_event("mov_to_msr", payload={"new_value": value}, vcpu_id=vcpu) for vcpu, value in values]
    assert [one(event, GUEST) for event in events] == [False, False, True, False, False, True]
    one.reset()
    assert not one(events[0], GUEST)


def test_prev_is_kept_whatever_was_decided_before_it() -> None:
    one = compile_expression("vcpu_id == 9 or prev(new_value) == 1", "mov_to_msr")
    first = make_event("mov_to_msr", payload={"new_value": 1}, vcpu_id=9)
    second = make_event("mov_to_msr", payload={"new_value": 2}, vcpu_id=9)
    assert one(first, GUEST)
    assert compile_expression("prev(new_value) == 1", "mov_to_msr")(second, GUEST) is False
    seen = compile_expression("new_value == 2 and prev(new_value) == 1", "mov_to_msr")
    assert [seen(event, GUEST) for event in (first, second)] == [False, True]


def test_seen_counts_how_often_it_is_reached() -> None:
    one = compile_expression('new_value == 1 and seen(3, "1s")', "mov_to_msr")
    hit = make_event("mov_to_msr", payload={"new_value": 1})
    other = make_event("mov_to_msr", payload={"new_value": 2})

    def at(ms: int, event=hit) -> bool:
        return one(event, SimpleNamespace(domid=1, name=None, now_ns=ms * 1_000_000))

    assert [at(0), at(1, other), at(400), at(1000), at(1001), at(1401), at(2002)] == [
        *(False, False, False, True, True, True, False)
    ]
    assert not at(5)  # the clock went back: what was counted is void
    assert [at(6), at(7)] == [False, True]


def test_seen_counts_each_value_apart() -> None:
    one = compile_filter('seen(2, "1s", mem_access.gfn)')
    pages = [make_event("mem_access", payload={"gfn": gfn}) for gfn in (1, 2, 1, 3, 2, 1)]
    assert [one(answered(event), GUEST) for event in [*pages, LSTAR, LSTAR]] == [
        *(False, False, True, False, True, True, False, False)
    ]


def test_explain_tells_which_part_decided() -> None:
    one = compile_expression(
        "msr in syscall_msrs and old_value == 0 and changed(1)", "mov_to_msr", names=NAMES
    )
    told = one.explain(LSTAR, GUEST)
    assert (told.text, told.value, told.shown) == (one.text, False, "false")
    assert [(part.text, part.shown) for part in told.parts] == [
        ("msr in syscall_msrs", "true"),
        ("old_value == 0", "false"),
        ("changed(1)", "not asked"),
    ]
    assert [(part.text, part.shown) for part in told.parts[1].parts] == [("old_value", "0x3")]
    assert not told.parts[2].asked


def test_explain_counts_as_a_call() -> None:
    one = compile_expression('seen(2, "1s")', "mov_to_msr")
    assert not one.explain(LSTAR, GUEST).value
    assert one(LSTAR, GUEST)


def test_what_is_always_so_is_known_before() -> None:
    assert compile_expression("1 + 1 == 2 and not False", "cpuid").constant is True
    assert compile_expression("1 << 4 > limit", "cpuid", names=NAMES).constant is False
    assert compile_expression("leaf == 1", "cpuid").constant is None
