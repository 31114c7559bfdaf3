"""``xenintro ctl``: ask a running service, or tell it something."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import click

from xenintro.errors import NoSuchDomainError, NoXenError, XenintroError
from xenintro.units import format_ns, format_size
from xenintro_cli import options
from xenintro_cli.output import write, write_lines
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

_TIMEOUT = 5.0

_name = click.option("-n", "--name", required=True, help="Domain of the service, by the name it was given.")


@click.group(name="ctl")
def command() -> None:
    """Status, reload, mode, rotate, tail of a running service.

    \b
    Examples:
      xenintro ctl status --name win10
      xenintro ctl mode --name win10 enforce
      xenintro ctl tail --name win10 | jq .reason
    """  # noqa: D301 - click takes the backspace for a mark


@command.command(name="status")
@_name
@options.output_format
def status(name: str, output_format: str) -> None:
    """What it watches, with which settings, and at which rate."""
    _print(_ask(name, "status"), output_format, _status_lines)


@command.command(name="stats")
@_name
@options.output_format
def stats(name: str, output_format: str) -> None:
    """Counts and pauses since it started."""
    _print(_ask(name, "stats"), output_format, _stats_lines)


@command.command(name="reload")
@_name
@options.output_format
def reload(name: str, output_format: str) -> None:
    """Read settings and policies again; if they are bad, the old ones stay, and this fails."""
    _print(_ask(name, "reload"), output_format, _status_lines)


@command.command(name="mode")
@_name
@options.output_format
@click.argument("mode", type=click.Choice(["observe", "enforce"]))
def mode(name: str, output_format: str, mode: str) -> None:
    """Send what policies answer, or only show it; until the next reload."""
    _print(_ask(name, "mode", mode=mode), output_format, _status_lines)


@command.command(name="rotate")
@_name
@options.output_format
def rotate(name: str, output_format: str) -> None:
    """Begin the next file of the capture now."""
    _print(_ask(name, "rotate"), output_format, _status_lines)


@command.command(name="tail")
@_name
def tail(name: str) -> None:
    """Events as they happen, as watch --format jsonl prints them, until Ctrl-C.

    A reader that is too slow misses lines (seq has gaps), and holds up nobody.
    """
    with _connected(name) as connection:
        _send(connection, {"do": "tail"})
        connection.settimeout(None)
        while data := connection.recv(1 << 16):
            write(data)


def _ask(name: str, do: str, **more: str) -> dict[str, Any]:
    with _connected(name) as connection, connection.makefile("rb") as answer:
        _send(connection, {"do": do, **more})
        try:
            line = answer.readline()
        except TimeoutError:
            line = b""
    if not line:
        raise XenintroError(
            f"the service for {name} does not answer",
            why=f"its loop did not come round within {_TIMEOUT:.0f} s, or it has just ended",
            hint=f"see: systemctl status xenintro@{name}",
        )
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise _refused(reply["error"])
    return reply


def _refused(error: dict[str, Any]) -> XenintroError:
    refused = XenintroError(error["what"], why=error["why"], hint=error["hint"])
    refused.exit_code = error["code"]
    return refused


def _connected(name: str) -> socket.socket:
    from xenintro.service.control import socket_path

    path = socket_path(name)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        if isinstance(error, PermissionError):
            raise NoXenError(
                f"may not talk to the service for {name}", why=f"{path}: {error.strerror}"
            ) from error
        raise NoSuchDomainError(
            f"no service for {name} runs",
            why=f"{path}: {error.strerror or error}",
            hint=f"start it: systemctl start xenintro@{name}",
        ) from error
    return connection


def _send(connection: socket.socket, order: dict[str, Any]) -> None:
    connection.sendall(json.dumps(order).encode() + b"\n")


def _print(
    reply: dict[str, Any], output_format: str, lines: Callable[[dict[str, Any]], Iterator[str]]
) -> None:
    if output_format == "jsonl":
        write(json.dumps(reply, ensure_ascii=False).encode() + b"\n")
    else:
        write_lines([_plain(line) for line in lines(reply)])


def _plain(line: str) -> str:
    """Without µ where the stream cannot show it."""
    return line.replace("µ", Style.of(sys.stdout).micro)


def _status_lines(status: dict[str, Any]) -> Iterator[str]:
    if status["state"] == "watching":
        yield f"watching {status['domain'] or status['service']} (domid {status['domid']})"
    else:
        yield f"waiting for {status['service']}"
    rows = {
        "mode": status["mode"],
        "traps": ", ".join(status["traps"]),
        "policies": ", ".join(status["policies"]) or "none",
        "deadline": format_ns(status["deadline_ns"]),
        "rate": f"{status['rate']:.0f}/s, pause p99 {format_ns(status['p99_ns'])}, "
        f"{100 * status['paused_ratio']:.1f} % of vCPU time",
        "events": f"{_grouped(status['events'])} in {_counted(status['attachments'], 'attachment')}, "
        f"{_counted(status['deadline_missed'], 'deadline')} missed, "
        f"{_counted(status['policy_errors'], 'decision')} failed",
        "config": status["config"] or "none",
        "since": status["started"] + (f", reloaded {status['reloaded']}" if status["reloaded"] else ""),
    }
    if status["capture"]:
        rows["capture"] = f"{status['capture']}, {format_size(status['capture_bytes'])} in all"
    if status["capture_error"]:
        rows["capture"] = f"none: {status['capture_error']}"
    if status["reload_error"]:
        rows["reload"] = f"failed: {status['reload_error']}"
    if status["tail_lines_dropped"]:
        rows["tail"] = f"{_grouped(status['tail_lines_dropped'])} lines were not sent: readers were too slow"
    for key, value in rows.items():
        yield f"  {key:<9} {value}"


def _stats_lines(stats: dict[str, Any]) -> Iterator[str]:
    attachments = _counted(stats["attachments"], "attachment")
    yield f"{stats['service']}  {_grouped(stats['events'])} events in {attachments}"
    if stats["reasons"]:
        yield f"  {'event':<20}{'count':>10}  {'pause p50':>10}{'p99':>10}{'max':>10}"
    for reason, pauses in stats["reasons"].items():
        times = "".join(f"{format_ns(pauses[key]):>10}" for key in ("p50_ns", "p99_ns", "max_ns"))
        yield f"  {reason:<20}{_grouped(pauses['count']):>10}  {times}"
    for title in ("answers", "would"):
        if stats[title]:
            counts = ", ".join(f"{name} {_grouped(count)}" for name, count in stats[title].items())
            yield f"  {title:<9} {counts}"
    yield (
        f"  {_counted(stats['deadline_missed'], 'deadline')} missed, "
        f"{_counted(stats['policy_errors'], 'decision')} failed"
    )


def _counted(number: int, what: str) -> str:
    return f"{_grouped(number)} {what}{'' if number == 1 else 's'}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")
