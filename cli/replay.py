"""``xenintro replay``: a capture through a policy again, and whether the answers are still the same."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click
import msgspec

from xenintro.capture.about import hashes
from xenintro.capture.reader import Capture
from xenintro.capture.replay import RecordedMemory, ReplaySource, guest_of, what_if
from xenintro.capture.verify import Verification
from xenintro.errors import AnswersDifferError
from xenintro.policy import load_all, running
from xenintro.session import Session
from xenintro.sinks.jsonl import timestamp
from xenintro_cli import options
from xenintro_cli.output import Form, Output, writer
from xenintro_cli.progress import with_progress
from xenintro_cli.recorded import ReadTalk, origin_of, wanted_of
from xenintro_cli.signals import stopped_by_signals
from xenintro_cli.summary import grouped

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.events import Event
    from xenintro.policy import Policy
    from xenintro.policy.language.columns import Columns
    from xenintro.policy.language.expression import Expression


class Speed(click.ParamType):  # type: ignore[type-arg]
    """``1``, ``10``: times as fast as it was recorded; ``max`` does not wait."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """The factor, None for ``max``."""
        if value == "max":
            return None
        try:
            speed = float(value)
        except ValueError:
            speed = 0.0
        if not 0 < speed < float("inf"):
            self.fail(f"{value!r} is no speed: 1, 10 or max", param, ctx)
        return speed


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks."""

    file: str
    policies: tuple[str, ...]
    mode: str | None
    verify: bool
    speed: float | None
    form: Form
    quiet: bool


@click.command(name="replay")
@click.argument("file", metavar="FILE")
@options.policies
@click.option(
    "--mode",
    type=click.Choice(["observe", "enforce"]),
    help="Show what policies would answer, or answer so; else as the capture was made.",
)
@click.option("--verify", is_flag=True, help="Compare with the recorded answers; print only what differs.")
@click.option(
    "--speed", type=Speed(), default="max", show_default=True, help="1 as it was, 10 times that, max."
)
@options.form
@options.color
@options.talk
def command(
    file: str,
    policy: tuple[str, ...],
    mode: str | None,
    verify: bool,
    speed: float | None,
    condition: Expression[Answered] | None,
    output_format: str,
    fields: Columns | None,
    color: str,
    quiet: bool,
) -> int:
    """Run the capture FILE ("-" reads stdin) through a policy, as if its guest were there again.

    The same code decides and answers as for a live guest, on the recorded times. With --verify every answer
    is compared with the recorded one byte for byte, and the exit code is 8 if one differs.

    \b
    Examples:
      xenintro replay win10.pcapng -p rules.toml
      xenintro replay win10.pcapng -p rules.toml --verify
    """  # noqa: D301 - click takes the backspace for a mark
    return replay(
        Choice(
            file=file,
            policies=policy,
            mode=mode,
            verify=verify,
            speed=speed,
            form=options.formed(output_format, fields, condition, color),
            quiet=quiet,
        )
    )


def replay(choice: Choice) -> int:
    """What the command does.

    Raises:
        AnswersDifferError: with ``verify``, an answer is not the recorded one.
        DamagedInputError: the capture is damaged; what could be read was replayed.
        PolicyError: see `xenintro.policy.load_all`.
    """
    with Capture(choice.file) as capture:
        policies = load_all(choice.policies, capture.interface)
        made, given = capture.info, hashes(choice.policies)
        same = bool(given) and _identities(given) == _identities(made.policies)
        mode = choice.mode or made.mode or "observe"
        info = made if same and mode == made.mode else what_if(made, mode)
        talk = ReadTalk(info, capture.interface, choice.form.color, quiet=choice.quiet)
        verification = Verification(would=bool(given)) if choice.verify else None
        talk.started(choice.file, info.events)
        if verification is not None:
            _remark(talk, made, same=same, given=bool(given))
        _run(choice, capture, info, policies, verification, talk)
        if verification is not None:
            _say_verified(talk, verification)
        if capture.damage is not None:
            raise capture.damage
    if verification is not None and verification.differing:
        raise AnswersDifferError(
            f"{grouped(verification.differing)} of {grouped(verification.compared)} answers differ "
            "from the recorded ones",
            why="their events are on stdout, with the answers given now",
            hint=f"as they were: xenintro watch -r {choice.file}",
        )
    return 0


def _run(
    choice: Choice,
    capture: Capture,
    info: CaptureInfo,
    policies: list[Policy],
    verification: Verification | None,
    talk: ReadTalk,
) -> None:
    quiet = choice.quiet or choice.speed is not None or (verification is None and sys.stdout.isatty())
    recorded = with_progress(capture, "replay", quiet=quiet)
    source = ReplaySource(
        recorded if verification is None else verification.recorded(recorded),
        info,
        capture.interface,
        pace=choice.speed,
    )
    guest = guest_of(info, RecordedMemory(capture))
    wanted = wanted_of("", info, capture.interface)
    origin = origin_of(info)
    output = choice.form.output(origin, writer(), noted=bool(policies))
    lines = _Lines(output, wanted, verification, choice.form.shows(origin))
    session = Session(
        source,
        guest=guest,
        enforce=info.mode == "enforce",
        wanted=wanted,
        observers=[lines.print],
        record=lines.add,
        clock=source.now_ns,
    )
    source.given_back = session.drained
    with (
        redirect_stdout(sys.stderr),  # what a policy prints is no event
        running(policies, guest) as decide,
        stopped_by_signals(session),
    ):
        session.decide = decide and source.deciding(decide)
        try:
            session.run()
        finally:
            rules = [rule.name for policy in policies for rule in policy.rules]
            talk.ended(session.summary, source.unanswered, rules)
    lines.print([])


class _Lines:
    """What is printed: the events that were asked for, or those whose answers differ."""

    def __init__(
        self,
        output: Output,
        wanted: Callable[[Event], bool],
        verification: Verification | None,
        shows: Callable[[Answered], bool] | None,
    ) -> None:
        self._output = output
        self._wanted = wanted
        self._verification = verification
        self._shows = shows
        self._waiting: list[Answered] = []

    def add(self, batch: list[Answered]) -> None:
        """Note what was answered."""
        if self._verification is None:
            self._waiting += [answered for answered in batch if self._wanted(answered.event)]
        else:
            self._verification(batch)
            self._waiting += [difference.computed for difference in self._verification.last]

    def print(self, _: list[Answered]) -> None:
        """Print what was noted."""
        self._output(self._waiting if self._shows is None else list(filter(self._shows, self._waiting)))
        self._waiting = []


def _identities(policies: dict[str, str]) -> list[str]:
    """What makes policies the same: what is in their files, or what a module is called."""
    return [digest or spec for spec, digest in policies.items()]


def _remark(talk: ReadTalk, info: CaptureInfo, *, same: bool, given: bool) -> None:
    """Say what cannot be compared, or will differ for a reason."""
    made = f"recorded with {', '.join(info.policies)} in {info.mode} mode" if info.policies else ""
    if not given and info.mode == "enforce":
        talk.say(f"note: {made}; without -p its answers cannot be given again: what it changed will differ")
    elif not given and made:
        talk.say(f"note: {made}; without -p only what was sent is compared")
    elif given and not made:
        talk.say("note: recorded without a policy: what yours changes will differ")
    elif given and not same:
        talk.say(f"note: {made}, and not with what the files hold now")


def _say_verified(talk: ReadTalk, verification: Verification) -> None:
    """How many answers are the same, and how the first other one differs."""
    compared, differing = grouped(verification.compared), grouped(verification.differing)
    if verification.unanswered:
        talk.say(f"  {verification.unanswered} requests have no answer in the capture")
    if verification.first is None:
        talk.say(f"  verified: {compared} answers are identical to the recorded ones")
        return
    number, recorded = verification.first.number, verification.first.recorded
    talk.say(f"  {differing} of {compared} answers differ; the first, request {number}:")
    talk.say(f"    {timestamp(recorded.taken_ns)}  vCPU {recorded.event.vcpu_id}  {recorded.event.reason}")
    for line in verification.first.words():
        talk.say(f"    {line}")
