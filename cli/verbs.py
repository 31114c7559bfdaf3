"""A group of verbs, each in a module that is imported only when the verb is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verb(NamedTuple):
    """A row of the help text."""

    section: str
    summary: str


class VerbGroup(click.Group):
    """Lists verbs by section and imports them one by one.

    Args:
        verbs: by their names, in the order of the help text.
        modules: what the name of a verb is appended to; its command is `command` there.
        options: as `click.Group` takes them.
    """

    def __init__(self, *, verbs: Mapping[str, Verb], modules: str, **options: Any) -> None:
        super().__init__(**options)
        self._verbs = verbs
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help text."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from its module."""
        if cmd_name not in self._verbs:
            return None
        command: click.Command = importlib.import_module(f"{self._modules}{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a misspelt verb."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], self._verbs, n=1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs by section."""
        for section in dict.fromkeys(verb.section for verb in self._verbs.values()):
            rows = [(name, verb.summary) for name, verb in self._verbs.items() if verb.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)
