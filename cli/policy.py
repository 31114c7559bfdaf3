"""``xenintro policy``: what is done with policies before and after they decide."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A module ``policy_NAME`` each.
VERBS: Mapping[str, str] = {
    "check": "find every mistake in files of rules",
    "test": "run the tests that rules carry",
    "explain": "what each rule makes of one event, and why",
    "diff": "what another policy would have answered",
    "fields": "what conditions may ask of an event",
    "list": "the rules of files, or those that come with xenintro",
}


class Group(click.Group):
    """Imports verbs one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help text."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from its module."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"xenintro_cli.policy_{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Group, name="policy")
def command() -> None:
    """Check, test and explain policies; none of it needs Xen.

    \b
    Examples:
      xenintro policy check rules.toml
      xenintro policy test rules.toml
      xenintro policy explain rules.toml event.json
    """  # noqa: D301 - click takes the backspace for a mark
