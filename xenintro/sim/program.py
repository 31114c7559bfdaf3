"""Guest code: the operations of a scenario laid out as x86 instructions in guest memory.

Every vCPU runs the same code, at its own pace. Operands that change from one execution to the next
come from ``set`` instructions in front of the one that uses them, so a monitor that changes registers
changes what the guest does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenintro.abi import MSRS
from xenintro.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Where guest physical memory is mapped in the guest's kernel, and where its code lies.
LINEAR_BASE = 0xFFFF_8000_0000_0000
CODE = 0x100000

_MASK64 = 0xFFFF_FFFF_FFFF_FFFF

#: mov r64, imm64 by register.
_SET = {
    "rax": b"\x48\xb8",
    "rcx": b"\x48\xb9",
    "rdx": b"\x48\xba",
    "rdi": b"\x48\xbf",
    "rsi": b"\x48\xbe",
}

#: The bytes of each instruction.
ENCODING = {
    "cr0": b"\x0f\x22\xc0",
    "cr3": b"\x0f\x22\xd8",
    "cr4": b"\x0f\x22\xe0",
    "xcr0": b"\x0f\x01\xd1",
    "wrmsr": b"\x0f\x30",
    "int3": b"\xcc",
    "icebp": b"\xf1",
    "hwdb": b"\x87\xdb",
    "cpuid": b"\x0f\xa2",
    "guest_request": b"\x0f\x01\xc1",
    "read": b"\x8a\x07",
    "write": b"\x88\x07",
    "modify": b"\xfe\x07",
    "walk": b"\x8a\x07",
    "exotic": b"\x0f\xc7\x27",
    "exec": b"\xff\xd7",
    "sgdt": b"\x0f\x01\x07",
    "sidt": b"\x0f\x01\x0f",
    "lgdt": b"\x0f\x01\x17",
    "lidt": b"\x0f\x01\x1f",
    "sldt": b"\x0f\x00\xc0",
    "str": b"\x0f\x00\xc8",
    "lldt": b"\x0f\x00\xd0",
    "ltr": b"\x0f\x00\xd8",
    "in": b"\xec",
    "out": b"\xee",
    "nop": b"\x90",
    "pause": b"\xf3\x90",
    "interrupt": b"\xfb",
    "loop": b"\x0f\x85\0\0\0\0",
    "jmp": b"\xe9\0\0\0\0",
    "hlt": b"\xf4",
}


class Insn:
    """One instruction.

    Attributes:
        number: its place in the code; vCPUs keep their counts under it.
        kind: a key of `ENCODING`, or ``set``, or ``ret``.
        rip: its linear address; `end` is that of the next one.
        gfn, offset: where its first byte lies.
        values: what a ``set`` cycles through.
        target: where a ``jmp`` or ``loop`` goes; the register of a ``set``.
        count: of a ``loop``.
    """

    __slots__ = (
        *("code", "count", "end", "gfn", "kind", "number", "offset", "register"),
        *("rip", "target", "values"),
    )

    def __init__(self, number: int, kind: str, rip: int, code: bytes) -> None:
        self.number = number
        self.kind = kind
        self.rip = rip
        self.code = code
        self.end = rip + len(code)
        self.offset = rip - LINEAR_BASE
        self.gfn = self.offset >> 12
        self.values: Sequence[int] = ()
        self.register = ""
        self.target = 0
        self.count = 0

    def __repr__(self) -> str:
        return f"{self.kind} at {self.rip:#x}"


class Program:
    """The code of a scenario.

    Attributes:
        insns: in order.
        at: by linear address.
        start: where vCPUs begin.
    """

    def __init__(self, ops: Sequence[dict[str, Any]], rounds: int) -> None:
        self.insns: list[Insn] = []
        self.start = LINEAR_BASE + CODE
        for op in ops:
            self._add(dict(op))
        if rounds == 0:
            self._jump("jmp", self.start)
        else:
            self._jump("loop", self.start, rounds)
            halt = self._emit("hlt", ENCODING["hlt"])
            self._jump("jmp", halt.rip)
        self.at = {insn.rip: insn for insn in self.insns}

    def image(self) -> Iterator[tuple[int, bytes]]:
        """Guest physical addresses and the bytes to put there."""
        return ((insn.offset, insn.code) for insn in self.insns)

    def _emit(self, kind: str, code: bytes) -> Insn:
        rip = self.insns[-1].end if self.insns else self.start
        if rip & 0xFFF > 0xFF0:  # no instruction crosses a page
            rip = (rip + 0xFFF) & ~0xFFF
            self.insns.append(self._filler(rip))
        insn = Insn(len(self.insns), kind, rip, code)
        self.insns.append(insn)
        return insn

    def _filler(self, page: int) -> Insn:
        last = self.insns[-1]
        return Insn(len(self.insns), "nop", last.end, b"\x0f\x1f" + bytes(page - last.end - 2))

    def _set(self, register: str, values: Sequence[int]) -> None:
        first = values[0] & _MASK64
        insn = self._emit("set", _SET[register] + first.to_bytes(8, "little"))
        insn.register = register
        insn.values = [value & _MASK64 for value in values]

    def _jump(self, kind: str, target: int, count: int = 0) -> None:
        insn = self._emit(kind, ENCODING[kind])
        insn.target = target
        insn.count = count

    def _add(self, op: dict[str, Any]) -> None:
        kind = str(op.pop("do"))
        times = int(op.pop("times", 1))
        start = len(self.insns)
        for register, values in _operands(kind, op):
            self._set(register, values)
        if op:
            raise UsageError(
                f"scenario: operation {kind!r} does not take {', '.join(sorted(op))}",
                hint="see the scenarios that come with xenintro",
            )
        self._emit(kind, ENCODING[kind])
        if times > 1:
            # The filler at a page's end may come first: loop to the first real instruction.
            self._jump("loop", self.insns[start].rip, times)


def _operands(kind: str, op: dict[str, Any]) -> Iterator[tuple[str, Sequence[int]]]:
    """The registers that an operation needs, taken out of its keys."""
    if kind in ("cr0", "cr3", "cr4"):
        yield "rax", op.pop("values")
    elif kind == "xcr0":
        values = op.pop("values")
        yield "rcx", [0]
        yield "rax", [value & 0xFFFFFFFF for value in values]
        yield "rdx", [value >> 32 for value in values]
    elif kind == "wrmsr":
        msr = op.pop("msr")
        values = op.pop("values")
        yield "rcx", [MSRS[msr] if isinstance(msr, str) else msr]
        yield "rax", [value & 0xFFFFFFFF for value in values]
        yield "rdx", [value >> 32 for value in values]
    elif kind == "cpuid":
        leaves = op.pop("leaves", [0])
        pairs = [leaf if isinstance(leaf, list) else [leaf, 0] for leaf in leaves]
        yield "rax", [leaf for leaf, _ in pairs]
        yield "rcx", [subleaf for _, subleaf in pairs]
    elif kind == "guest_request":
        # HVMOP_guest_request_vm_event, by __HYPERVISOR_hvm_op.
        yield "rax", [34]
        yield "rdi", [24]
        yield "rsi", [0]
    elif kind in ("read", "write", "modify", "walk", "exotic", "exec"):
        first, pages = op.pop("gfn"), op.pop("pages", 1)
        offset = op.pop("offset", 0)
        yield "rdi", [LINEAR_BASE + (first + page << 12) + offset for page in range(pages)]
    elif kind in ("sgdt", "sidt", "lgdt", "lidt"):
        yield "rdi", [LINEAR_BASE + 0x2000]
    elif kind in ("lldt", "ltr"):
        yield "rax", [op.pop("selector", 0x28)]
    elif kind in ("in", "out"):
        yield "rdx", [op.pop("port", 0xE9)]
        yield "rax", [ord(".")]
    elif kind == "interrupt":
        yield "rax", [op.pop("vector", 0xEF)]
