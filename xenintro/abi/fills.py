"""Which registers a release leaves unfilled, by reason: absent is not zero.

Sources: p2m_mem_event_fill_regs and hvm_mem_event_fill_regs (Xen 4.5, and the patch before it),
hvm_event_fill_regs (4.6), vm_event_fill_regs (4.7 on), arch/x86/hvm/event.c and vm_event.c.
"""

from __future__ import annotations

#: hvm_mem_event_fill_regs and hvm_event_fill_regs copy 22 registers; these ten stay zero.
_NOT_IN_HVM_FILL = frozenset(
    [
        "dr7",
        "cr2",
        "sysenter_cs",
        "sysenter_esp",
        "sysenter_eip",
        "msr_star",
        "msr_lstar",
        "fs_base",
        "gs_base",
        "cs_arbytes",
    ]
)

#: vm_event_fill_regs copies dr6 from a context that nobody fills since 27225bbb6d (Xen 4.12).
_DR6 = frozenset({"dr6"})

_NOTHING: frozenset[str] = frozenset()

#: Reasons of the paging and sharing rings: no registers travel with them in any release.
_NO_REGISTERS = frozenset({"unknown", "mem_paging", "mem_sharing"})

#: Interfaces whose EPT violations fill everything and whose other events fill 22 registers.
_SPLIT_FILLS = frozenset({"mem_event-rfc3", "mem_event-4.5", "vm_event-1"})


def unfilled(
    interface_id: str, release: str | None, reason: str, registers: frozenset[str]
) -> frozenset[str]:
    """The registers that the hypervisor leaves zero in a request.

    Args:
        interface_id: such as ``vm_event-7``.
        release: the Xen release (``4.7``) where it is known; vm_event-1 is 4.6 and 4.7, which differ.
        reason: the event's name.
        registers: every register of the block.
    """
    if reason in _NO_REGISTERS:
        return registers
    if interface_id in _SPLIT_FILLS and release != "4.7":
        return _NOTHING if reason == "mem_access" else _NOT_IN_HVM_FILL & registers
    return _DR6 & registers
