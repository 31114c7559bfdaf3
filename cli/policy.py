"""``xenintro policy``: what is done with policies before and after they decide."""

from __future__ import annotations

import click

from xenintro_cli.verbs import Verb, VerbGroup

VERBS = {
    "check": Verb("Commands", "find every mistake in files of rules"),
    "test": Verb("Commands", "run the tests that rules carry"),
    "explain": Verb("Commands", "what each rule makes of one event, and why"),
    "diff": Verb("Commands", "what another policy would have answered"),
    "fields": Verb("Commands", "what conditions may ask of an event"),
    "list": Verb("Commands", "the rules of files, or those that come with xenintro"),
}


@click.group(cls=VerbGroup, name="policy", verbs=VERBS, modules="xenintro_cli.policy_")
def command() -> None:
    """Check, test and explain policies; none of it needs Xen.

    \b
    Examples:
      xenintro policy check rules.toml
      xenintro policy test rules.toml
      xenintro policy explain rules.toml event.json
    """  # noqa: D301 - click takes the backspace for a mark
