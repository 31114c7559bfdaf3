"""``xenintro policy check``: every mistake in files of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xenintro.abi import interface
from xenintro.errors import PolicyError, RulesError
from xenintro.policy import load
from xenintro.policy.dead import dead_rules
from xenintro.policy.rules import RulePolicy
from xenintro_cli.ending import show
from xenintro_cli.output import write_lines

if TYPE_CHECKING:
    from xenintro.abi import Interface


@click.command(name="check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--abi",
    metavar="ID",
    help="Interface of the guest: what it cannot do is a mistake, for instance vm_event-5.",
)
def command(files: tuple[str, ...], abi: str | None) -> int:
    """Find every mistake in policies: syntax, names, types, answers that Xen would ignore, rules never asked.

    The exit code is 8 if there is one.

    \b
    Example:
      xenintro policy check /etc/xenintro/rules.d/*.toml
    """  # noqa: D301 - click takes the backspace for a mark
    layout = interface(abi) if abi is not None else None
    found = [mistake for file in files for mistake in _check(file, layout)]
    for mistake in found:
        show(mistake)
    if found:
        click.echo(f"{len(found)} {'mistakes' if len(found) > 1 else 'mistake'}", err=True)
    return PolicyError.exit_code if found else 0


def _check(file: str, layout: Interface | None) -> list[PolicyError]:
    try:
        policy = load(file, layout)
    except RulesError as error:
        return list(error.mistakes)
    except PolicyError as error:
        return [error]
    dead = dead_rules(policy) if isinstance(policy, RulePolicy) else []
    if not dead:
        rules = len(policy.rules)
        write_lines([f"ok  {file}: {rules} {'rule' if rules == 1 else 'rules'}"])
    return dead
