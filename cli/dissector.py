"""Options that give captures to Wireshark: they need no capture, do their one thing, and end the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xenintro_cli.output import write_lines

if TYPE_CHECKING:
    from collections.abc import Callable


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--dissector`` and ``--install-dissector``."""
    for name, callback, text in (
        ("--install-dissector", _install, "Let Wireshark and tshark of this user read captures, and exit."),
        ("--dissector", _name, "Print the file for tshark -X lua_script:FILE, and exit."),
    ):
        command = click.option(
            name, is_flag=True, is_eager=True, expose_value=False, callback=callback, help=text
        )(command)
    return command


def _name(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from xenintro.wireshark.install import dissector_file

        write_lines([str(dissector_file())])
        ctx.exit()


def _install(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from xenintro.wireshark.install import PROFILE, install

        plugin, colors = install()
        write_lines([str(plugin), str(colors)])
        click.echo(f"for the colours: wireshark -C {PROFILE} FILE", err=True)
        ctx.exit()
