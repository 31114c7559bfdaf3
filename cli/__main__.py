"""The command ``xenintro``: finds the verb, runs it, and turns errors into three lines and an exit code."""

from __future__ import annotations

import os
import sys

import click

from xenintro.errors import UsageError
from xenintro_cli.ending import guarded, show
from xenintro_cli.verbs import Verb, VerbGroup

VERBS = {
    "list": Verb("Look", "domains, and whether they can be watched"),
    "doctor": Verb("Look", "check this host, or one domain, and say what to fix"),
    "watch": Verb("Look", "print events as they happen"),
    "decode": Verb("Look", "print the requests on a raw ring page"),
    "record": Verb("Keep", "write a capture"),
    "replay": Verb("Keep", "run a capture through a policy again"),
    "inspect": Verb("Keep", "what is in a capture"),
    "export": Verb("Keep", "turn a capture into a table, a timeline, a flame graph"),
    "policy": Verb("Decide", "check, test, explain and compare rules"),
    "serve": Verb("Operate", "run as a service for one domain"),
    "ctl": Verb("Operate", "status, reload, mode, rotate, tail of a running service"),
    "rescue": Verb("Operate", "release a domain whose watcher died"),
    "demo": Verb("Try", "watch a simulated guest; needs no Xen"),
    "sim": Verb("Try", "run any command against a simulated Xen"),
}


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib import metadata  # its parser of mail headers is slow to load

    click.echo(f"xenintro {metadata.version('xenintro')}")
    if ctx.params.get("verbose"):
        from xenintro.xen.probe import versions

        rows = versions(os.environ.get("XENINTRO_XEN", "auto"))
        for name, version in rows.items():
            click.echo(f"  {name:<12}  {version}")
    ctx.exit()


@click.group(
    cls=VerbGroup,
    verbs=VERBS,
    modules="xenintro_cli.",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "XENINTRO"},
)
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, help="Show the version and exit."
)
@click.option(
    "-v", "verbose", is_flag=True, is_eager=True, help="With --version: those of Xen and Python too."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
def cli(verbose: bool, debug: bool) -> None:
    """Watch a Xen guest from the outside.

    Every event is answered, and the guest runs on whatever happens to this program's policy, output or user.
    """


def main() -> None:
    """Run the command line and exit with the documented code."""
    _open_closed_streams()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line; returns its exit code. Errors are printed, never raised."""
    return guarded(lambda: _run(args))


def _run(args: list[str]) -> object:
    try:
        return cli.main(args=args, prog_name="xenintro", standalone_mode=False)
    except click.ClickException as error:
        _show_usage(error)
        return error.exit_code


def _open_closed_streams() -> None:
    """Give closed standard streams somewhere to go, before something else takes their descriptors."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _show_usage(error: click.ClickException) -> None:
    """A mistake in the command line, said as every other error."""
    ctx = getattr(error, "ctx", None)
    if ctx is None or isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
        return
    what = error.format_message().rstrip(".")
    usage = " ".join(ctx.get_usage().split())
    hint = f"see: {ctx.command_path} --help"
    show(UsageError(what[:1].lower() + what[1:], why=usage[:1].lower() + usage[1:], hint=hint))


if __name__ == "__main__":
    main()
