"""The command tree of `kuber`."""

from typing import Annotated

import typer

from kuber import __version__
from kuber.cli.compare import compare
from kuber.cli.dashboard import dashboard
from kuber.cli.entity import entity
from kuber.cli.export import export
from kuber.cli.hub import hub
from kuber.cli.hub_backup import backup, restore
from kuber.cli.hub_maintenance import check, collect, scrub
from kuber.cli.hub_status import status
from kuber.cli.hub_suspicious import suspicious
from kuber.cli.knowledge import knowledge
from kuber.cli.registry import registry
from kuber.cli.run import run
from kuber.cli.simulate import simulate
from kuber.cli.terminal import say
from kuber.cli.vault import vault
from kuber.cli.watch import watch

app = typer.Typer(
    help="Knowledge exchange between independently trained deep networks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich's panels cut options off at 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, simulate, compare, entity, export, registry, vault, watch, dashboard):
    app.command()(command)
for command in (status, suspicious, collect, scrub, check, backup, restore):
    hub.command()(command)
app.add_typer(hub, name="hub")
app.add_typer(knowledge, name="knowledge")


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"kuber {__version__}")
        raise typer.Exit


@app.callback()
def _kuber(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Knowledge exchange between independently trained deep networks."""
