"""The keys of a service's configuration file, and what they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from xenintro.abi import CTRLREGS
from xenintro.capture.naming import Rotation
from xenintro.errors import UsageError
from xenintro.traps import Trap, parse_traps
from xenintro.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Ctrlreg(_Table, frozen=True):
    """How writes trap: without waiting, only changes, not those of the bits in ``mask``."""

    async_: bool = msgspec.field(default=False, name="async")
    onchange: bool = False
    mask: int | str = 0


class Msr(_Table, frozen=True):
    """A model-specific register by name or number; ``onchange``: only writes that change it."""

    msr: str | int
    onchange: bool = False


class Mem(_Table, frozen=True):
    """Pages (``"0x1000-0x1fff"``) and accesses (letters of rwx); ``step``: open the page for one step."""

    access: str
    gfns: str | int
    step: bool = False


class GuestRequest(_Table, frozen=True):
    """Guest requests, from CPL 3 too with ``userspace``."""

    async_: bool = msgspec.field(default=False, name="async")
    userspace: bool = False


class Debug(_Table, frozen=True):
    """Debug exceptions; ``async``: the vCPU does not wait."""

    async_: bool = msgspec.field(default=False, name="async")


class Asked(_Table, frozen=True):
    """Single-steps, or interrupts; ``asked``: only those that an answer of a policy asks for."""

    asked: bool = False


class Domain(_Table, frozen=True):
    """Which domain."""

    name: str | None = None


class Traps(_Table, frozen=True):
    """What to trap; ``xenintro watch --help`` says what each is."""

    cr0: bool | Ctrlreg = False
    cr3: bool | Ctrlreg = False
    cr4: bool | Ctrlreg = False
    xcr0: bool | Ctrlreg = False
    msr: list[str | int | Msr] = []
    mem: list[Mem] = []
    cpuid: bool = False
    guest_request: bool | GuestRequest = False
    int3: bool = False
    debug: bool | Debug = False
    singlestep: bool | Asked = False
    desc: bool = False
    interrupt: bool | Asked = False
    emul_unimplemented: bool = False
    vmexit: bool = False
    privileged_call: bool = False


class Policies(_Table, frozen=True):
    """Who decides: files (``*`` and ``?`` match), asked in this order; answers are sent with ``enforce``."""

    files: list[str] = []
    mode: Literal["observe", "enforce"] = "observe"


class Safety(_Table, frozen=True):
    """How long a vCPU may wait, and what happens when a policy fails: always the event."""

    deadline: str = "250ms"
    on_error: Literal["allow"] = "allow"


class Capture(_Table, frozen=True):
    """Where everything that was on the ring is recorded: a directory, or FILE.pcapng[.gz|.zst].

    ``rotate``: how big (``"256MB"``) or old (``"1h"``) a file gets; ``keep``: how many there are.
    """

    path: str | None = None
    rotate: str = "256MB"
    keep: Annotated[int, msgspec.Meta(ge=1)] = 20


class Metrics(_Table, frozen=True):
    """Where numbers go."""

    textfile: str | None = None


class Config(_Table, frozen=True):
    """A whole file."""

    domain: Domain = Domain()
    traps: Traps = Traps()
    policy: Policies = Policies()
    safety: Safety = Safety()
    capture: Capture = Capture()
    metrics: Metrics = Metrics()


def traps_of(traps: Traps) -> tuple[Trap, ...]:
    """The traps that are asked for.

    Raises:
        UsageError: none, a bad number, two that overlap; it names the key.
        NotSupportedError: one that no generic answer lets pass.
    """
    wanted = dict(_texts(traps))
    for path, text in wanted.items():
        _named(path, text)
    if not wanted:
        raise UsageError("traps: nothing is asked for", hint="for instance cr3 = true below [traps]")
    return _named("traps", ",".join(wanted.values()))


def deadline_of(safety: Safety) -> float:
    """Seconds.

    Raises:
        UsageError: not a duration.
    """
    try:
        return parse_duration(safety.deadline)
    except UsageError as error:
        raise UsageError(f"safety.deadline: {error.what}", why=error.why, hint=error.hint) from error


def rotation_of(capture: Capture) -> Rotation:
    """When the next file begins.

    Raises:
        UsageError: neither a size nor a duration.
    """
    try:
        return Rotation.parse(capture.rotate)
    except UsageError as error:
        raise UsageError(f"capture.rotate: {error.what}", why=error.why, hint=error.hint) from error


def _texts(traps: Traps) -> Iterator[tuple[str, str]]:
    """Key and what it is for `parse_traps`."""
    for name in CTRLREGS:
        option = getattr(traps, name, False)
        if option:
            yield f"traps.{name}", name + _modifiers(option)
    for number, entry in enumerate(traps.msr):
        msr = entry if isinstance(entry, Msr) else Msr(msr=entry)
        yield f"traps.msr[{number}]", f"msr:{_number(msr.msr)}" + _modifiers(msr)
    for number, mem in enumerate(traps.mem):
        yield f"traps.mem[{number}]", f"mem:{mem.access}@{_number(mem.gfns)}" + _modifiers(mem)
    for field in traps.__struct_fields__:
        option = getattr(traps, field)
        if field not in CTRLREGS and option and not isinstance(option, list):
            yield f"traps.{field}", field.replace("_", "-") + _modifiers(option)


def _modifiers(options: bool | msgspec.Struct) -> str:
    if isinstance(options, bool):
        return ""
    text = "".join(
        f":{field.encode_name}"
        for field in msgspec.structs.fields(options)
        if getattr(options, field.name) is True
    )
    mask = getattr(options, "mask", 0)
    return text + (f":mask={_number(mask)}" if mask else "")


def _number(value: str | int) -> str:
    return hex(value) if isinstance(value, int) else value


def _named(path: str, text: str) -> tuple[Trap, ...]:
    if path != "traps" and "," in text:
        raise UsageError(f"{path}: not one trap: {text!r}", why="there is a comma in it")
    try:
        return parse_traps(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", why=error.why, hint=error.hint) from error
