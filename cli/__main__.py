"""The command ``xenintro``: finds the verb, runs it, and turns errors into three lines and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

import click

from xenintro.errors import XenintroError
from xenintro_cli.output import ReaderGoneError
from xenintro_cli.style import Style


class Verb(NamedTuple):
    """A row of the help text; the module is imported only when the verb is used."""

    section: str
    summary: str


VERBS = {
    "list": Verb("Look", "domains, and whether they can be watched"),
    "doctor": Verb("Look", "check this host, or one domain, and say what to fix"),
    "watch": Verb("Look", "print events as they happen"),
    "decode": Verb("Look", "print the requests on a raw ring page"),
    "demo": Verb("Try", "watch a simulated guest; needs no Xen"),
    "sim": Verb("Try", "run any command against a simulated Xen"),
}


class Group(click.Group):
    """Lists verbs by section and imports them one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help text."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from its module."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"xenintro_cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a misspelt verb."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], VERBS, n=1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs by section."""
        for section in dict.fromkeys(verb.section for verb in VERBS.values()):
            rows = [(name, verb.summary) for name, verb in VERBS.items() if verb.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "XENINTRO"},
)
@click.version_option(package_name="xenintro", message="xenintro %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
def cli(debug: bool) -> None:
    """Watch a Xen guest from the outside.

    Every event is answered, and the guest runs on whatever happens to this program's policy, output or user.
    """


def main() -> None:
    """Run the command line and exit with the documented code."""
    _open_closed_streams()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line; returns its exit code. Errors are printed, never raised."""
    try:
        code = cli.main(args=args, prog_name="xenintro", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except XenintroError as error:
        _show(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 0
    except ReaderGoneError:
        _discard_the_rest()
        return 0
    except Exception as error:
        if "--debug" in args:
            raise
        _show(
            XenintroError(
                f"unexpected {type(error).__name__}: {error}",
                why="this is a bug in xenintro; a domain that was watched has been released",
                hint="for the traceback: xenintro --debug ...",
            )
        )
        return XenintroError.exit_code
    return code if isinstance(code, int) else 0


def _open_closed_streams() -> None:
    """Give closed standard streams somewhere to go, before something else takes their descriptors."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _discard_the_rest() -> None:
    """What is still buffered for a reader that has gone has nowhere to go."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _show(error: XenintroError) -> None:
    style = Style.of(sys.stderr)
    first, *rest = error.lines()
    click.echo(style.alarm("error:") + first.removeprefix("error:"), err=True)
    for line in rest:
        click.echo(line, err=True)


if __name__ == "__main__":
    main()
