"""``xenintro serve``: watch one domain for as long as the service runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xenintro_cli import options
from xenintro_cli.ending import guarded
from xenintro_cli.host import libraries
from xenintro_cli.output import write, write_lines

if TYPE_CHECKING:
    from xenintro.service.layers import Layers
    from xenintro.supervise.link import Link

_INSTALLED = "/usr/bin/xenintro"


@click.command(name="serve")
@click.option("-n", "--name", help="Domain by name or UUID; it need not be there yet.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings, as TOML; FILE.d/*.toml change them.",
)
@click.option(
    "-o", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one: -o policy.mode=enforce."
)
@click.option("--print-config", is_flag=True, help="Print every setting and where it comes from, and exit.")
@click.option("--config-schema", is_flag=True, help="Print the JSON Schema of the settings, and exit.")
@click.option(
    "--print-unit", is_flag=True, help="Print the unit for systemd, with the path of this program, and exit."
)
@options.xen
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@click.option("-v", "--verbose", count=True, help="Log more.")
@click.pass_context
def command(
    ctx: click.Context,
    name: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    print_config: bool,
    config_schema: bool,
    print_unit: bool,
    selection: str,
    quiet: bool,
    verbose: int,
) -> int:
    """Run as a service for one domain: wait for it, watch it, and again after its reboot.

    SIGHUP reads the settings again, SIGTERM ends. What it does and how it is: xenintro ctl.

    \b
    Examples:
      xenintro serve --name win10 --config /etc/xenintro/win10.toml
      xenintro serve --print-unit > /etc/systemd/system/xenintro@.service
      systemctl enable --now xenintro@win10
    """  # noqa: D301 - click takes the backspace for a mark
    from xenintro.service.layers import Layers, listing

    if config_schema:
        write(_schema())
        return 0
    if print_unit:
        write(_unit())
        return 0
    layers = Layers(config, _overrides(ctx, name, settings))
    checked = layers.load()
    if print_config:
        write_lines(listing(checked))
        return 0
    return serve(layers, selection, verbosity=-1 if quiet else verbose)


def serve(layers: Layers, selection: str, *, verbosity: int = 0) -> int:
    """What the command does."""
    with libraries(selection) as directory:
        # Native parts are imported only now: --help works where they are not installed.
        from xenintro.service.log import set_up
        from xenintro.service.service import Service
        from xenintro.supervise.front import supervised
        from xenintro.xen.monitor import Monitor
        from xenintro.xen.xc import Xc, libraries_of

        set_up(verbosity)
        library, own_domid = libraries_of(directory)

        def work(link: Link) -> int:
            with Xc(library, own_domid=own_domid) as xc:

                def attach(domid: int, traps: Any, deadline: float, denying: bool) -> Monitor:
                    return Monitor(xc, domid, traps, deadline=deadline, watcher=link, denying=denying)

                Service(xc, layers, attach, link.pending).run()
            return 0

        return supervised(library, own_domid, work, guarded)


def _overrides(
    ctx: click.Context, name: str | None, settings: tuple[str, ...]
) -> list[tuple[str, dict[str, Any]]]:
    """What the environment says, then what the command line says."""
    from click.core import ParameterSource

    from xenintro.service.layers import setting

    given = {
        "settings": [("-o", setting(text)) for text in settings],
        "name": [] if name is None else [("--name", {"domain": {"name": name}})],
    }
    environment: list[tuple[str, dict[str, Any]]] = []
    flags: list[tuple[str, dict[str, Any]]] = []
    for option, layers in given.items():
        if ctx.get_parameter_source(option) == ParameterSource.ENVIRONMENT:
            variable = f"{ctx.auto_envvar_prefix}_{option.upper()}"
            environment += [(variable, layer) for _, layer in layers]
        else:
            flags += layers
    return [*environment, *flags]


def _unit() -> bytes:
    """The unit that comes with xenintro; it names the program where distributions put it."""
    text = (Path(__file__).parent / "data" / "xenintro@.service").read_text(encoding="utf-8")
    program = Path(sys.argv[0]).absolute()
    return (text.replace(_INSTALLED, str(program)) if program.name == "xenintro" else text).encode()


def _schema() -> bytes:
    import msgspec

    from xenintro.service.config import Config

    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Config)), indent=2) + b"\n"
