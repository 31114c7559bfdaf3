"""Options that mean the same in every verb."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from xenintro.capture.naming import Rotation
from xenintro.errors import ExpressionError, UsageError
from xenintro.sinks.stderr import NeverWaiting
from xenintro.units import parse_duration, parse_int
from xenintro_cli.output import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from xenintro.answered import Answered
    from xenintro.policy.language.columns import Columns
    from xenintro.policy.language.expression import Expression

F = TypeVar("F", bound="Callable[..., Any]")


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.4 on
    """``30s``, ``500ms``: seconds as a float."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, or a usage error."""
        return value if isinstance(value, float) else parse_duration(value)


class Number(click.ParamType):  # type: ignore[type-arg]
    """A decimal or 0x number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, or a usage error."""
        return value if isinstance(value, int) else parse_int(value)


class Filter(click.ParamType):  # type: ignore[type-arg]
    """A condition on answered requests."""

    name = "filter"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Expression[Answered]:
        """The condition, or a usage error that marks the mistake."""
        from xenintro.policy.language.expression import Expression, compile_filter

        with _marked("--filter"):
            return value if isinstance(value, Expression) else compile_filter(value)


class Fields(click.ParamType):  # type: ignore[type-arg]
    """Names of fields with commas between them."""

    name = "fields"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Columns:
        """The columns, or a usage error that marks the mistake."""
        from xenintro.policy.language.columns import Columns

        with _marked("--fields"):
            return value if isinstance(value, Columns) else Columns(value)


@contextmanager
def _marked(option: str) -> Iterator[None]:
    """A mistake in an expression on the command line is one in its use."""
    try:
        yield
    except ExpressionError as error:
        what, *rest = error.lines()
        why = "\n".join(rest).strip("\n").removeprefix("  ")
        raise UsageError(f"{option}: {what.removeprefix('error: ')}", why=why) from None


class Rotate(click.ParamType):  # type: ignore[type-arg]
    """``100MB`` or ``10m``: when the next file begins."""

    name = "rotation"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Rotation:
        """When, or a usage error."""
        return value if isinstance(value, Rotation) else Rotation.parse(value)


xen = click.option(
    "--xen",
    "selection",
    default="auto",
    show_default=True,
    envvar="XENINTRO_XEN",
    metavar="auto|sim|DIR",
    help="The host's libraries, a private simulator, or a directory of libraries.",
)
output_format = click.option(
    "--format",
    "output_format",
    type=click.Choice(["human", "jsonl"]),
    default="human",
    show_default=True,
    help="Lines for people, or one JSON object per line.",
)


def form(function: F) -> F:
    """Adds ``--filter``, ``--format`` and ``--fields``."""
    for option in (
        click.option(
            "-F",
            "--fields",
            type=Fields(),
            metavar="LIST",
            help="What --format fields prints: ts,vcpu_id,gfn,regs.rip (see: xenintro policy fields).",
        ),
        click.option(
            "--format",
            "output_format",
            type=click.Choice(["human", "jsonl", "fields"]),
            default="human",
            show_default=True,
            help="Lines for people, one JSON object per line, or chosen fields with tabs between them.",
        ),
        click.option(
            "-f",
            "--filter",
            "condition",
            type=Filter(),
            metavar="EXPR",
            help="Show only events for which this holds; all are answered.",
        ),
    ):
        function = option(function)
    return function


def formed(
    output_format: str, fields: Columns | None, condition: Expression[Answered] | None, color: str
) -> Form:
    """What the options of `form` and ``--color`` ask for.

    Raises:
        UsageError: fields without their format, or the other way round.
    """
    if (fields is None) is (output_format == "fields"):
        raise UsageError(
            "--format fields and -F go together",
            why="the one says how lines look, the other what is in them",
            hint="for instance: --format fields -F ts,vcpu_id,gfn,regs.rip",
        )
    return Form(format=output_format, columns=fields, filter=condition, color=color)


color = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colour on the human lines; auto follows NO_COLOR, FORCE_COLOR, TERM.",
)


#: Watched when no events are named: rare in a running guest, and possible on every x86 host.
EVENTS = "cr0,cr3,cr4,xcr0,msr:efer,msr:star,msr:lstar,guest-request"

events = click.option(
    "-e",
    "--events",
    multiple=True,
    default=[EVENTS],
    show_default=True,
    metavar="LIST",
    help="What to trap, more than once if you like: cr0 cr3 cr4 xcr0 msr:NAME cpuid guest-request int3 debug "
    "singlestep desc interrupt mem:rwx@GFN[-GFN] emul-unimplemented vmexit privileged-call. Modifiers: "
    "cr4:onchange:mask=0x80:async, msr:NAME:onchange, guest-request:async:userspace, debug:async, "
    "mem:w@GFN:step; singlestep:asked and interrupt:asked: only those that an answer asks for.",
)

#: Seconds that a vCPU waits at most, whatever a policy does.
DEADLINE = 0.25

deadline = click.option(
    "--deadline",
    type=Duration(),
    default=f"{DEADLINE * 1000:.0f}ms",
    show_default=True,
    help="When an event is allowed if the policy has not answered it.",
)


def _file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and str(value) == "-":
        raise UsageError("a capture does not go to stdout", why="it is written for good", hint="name a file")
    return value


write = click.option(
    "-w",
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_file,
    metavar="FILE",
    help="Record everything that was on the ring; .gz or .zst: compressed in the end.",
)
force = click.option("--force", is_flag=True, help="Replace a file that is there.")


def rotate(function: F) -> F:
    """Adds ``--rotate`` and ``--keep``."""
    function = click.option(
        "--keep", type=click.IntRange(min=1), metavar="N", help="Keep the newest files; with --rotate."
    )(function)
    return click.option(
        "--rotate",
        type=Rotate(),
        metavar="SIZE|TIME",
        help="Begin another file after 100MB, or 10m; names get the time.",
    )(function)


policies = click.option(
    "-p", "--policy", multiple=True, metavar="FILE", help="Who decides; the first rule with a say wins."
)


def policy(function: F) -> F:
    """Adds ``--policy`` and ``--mode``."""
    function = click.option(
        "--mode",
        type=click.Choice(["observe", "enforce"]),
        default="observe",
        show_default=True,
        help="Show what policies would answer and allow everything, or send it.",
    )(function)
    return policies(function)


def domain(function: F) -> F:
    """Adds ``--domid`` and ``--name``."""
    function = click.option("-n", "--name", help="Domain by name or UUID.")(function)
    return click.option("-d", "--domid", type=Number(), help="Domain by number.")(function)


def talk(function: F) -> F:
    """Adds ``-q`` and ``-v``, which set how much is said on stderr."""
    function = click.option(
        "-v", "--verbose", count=True, callback=_set_level, expose_value=False, help="Say more on stderr."
    )(function)
    return click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors on stderr.")(function)


def _set_level(ctx: click.Context, param: click.Parameter, value: int) -> None:
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(
        format="%(levelname)s: %(message)s", level=levels[min(value, 2)], stream=NeverWaiting()
    )


def is_given(name: str) -> bool:
    """Whether an option is on the command line: defaults and the environment do not count."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def refuse(names: Container[str], what: str, *, why: str, hint: str = "") -> None:
    """Pass a command line that has none of these options.

    Raises:
        UsageError: it has one, which makes no sense because of ``what``.
    """
    for param in click.get_current_context().command.params:
        if param.name in names and is_given(param.name):
            raise UsageError(f"{param.opts[-1]} is for a live domain, and {what}", why=why, hint=hint)
