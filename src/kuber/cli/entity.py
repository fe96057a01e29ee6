"""`kuber entity`: one entity that joins services which are already running."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kuber import tracing
from kuber.cli.run import echo_error
from kuber.cli.run_progress import PlainLines
from kuber.cli.setting_options import Ca, with_settings
from kuber.domain.evaluation import Evaluation
from kuber.settings import Settings

Index = Annotated[int, typer.Argument(min=0, help="Which part of the data: 0 to the number of entities minus 1.")]
RegistryUrl = Annotated[str, typer.Option("--registry", metavar="URL", help="The registry to join.")]
VaultUrl = Annotated[str, typer.Option("--vault", metavar="URL", help="The vault to use.")]
Resume = Annotated[Path | None, typer.Option("--resume", metavar="DIR", help="Go on in an earlier entity's folder.")]

Invitation = Annotated[
    str | None,
    typer.Option("--invitation", metavar="CODE", help="What the hub's operator gave you to join with."),
]
IdentityFolder = Annotated[
    Path | None,
    typer.Option("--identity", metavar="DIR", help="Folder of the entity's key and token; else identities/INDEX."),
]
Patience = Annotated[
    float,
    typer.Option(
        "--patience", metavar="SECONDS", min=0, max=3600, help="How long a silent hub is asked before going on alone."
    ),
]
ChangeKey = Annotated[
    bool,
    typer.Option("--change-key", help="Do nothing but this: sign with a new key, which the old one vouches for."),
]

_NOT_HERE = {"host", "registry_port", "vault_port"}


@with_settings(*(name for name in Settings.model_fields if name not in _NOT_HERE))
def entity(
    index: Index,
    settings: Settings | None,
    registry: RegistryUrl = "http://127.0.0.1:5001",
    vault: VaultUrl = "http://127.0.0.1:5002",
    resume: Resume = None,
    invitation: Invitation = None,
    identity: IdentityFolder = None,
    patience: Patience = 10.0,
    ca: Ca = None,
    change_key: ChangeKey = False,
) -> None:
    """Train entity INDEX on its part of the data, sharing and retrieving through a running registry and vault."""
    home = identity or Path("identities") / str(index)
    if change_key:
        from kuber.client import key_rotation

        member = key_rotation.change_key(home, str(index), registry, patience=patience, ca=ca)
        print(f"Entity {index} signs with {member.keys[-1].public_key} from record {member.keys[-1].since} on.")
        return

    with tracing.traced("kuber-entity"):  # before torch is loaded: what is missing is told at once
        from kuber.experiment import run_folder
        from kuber.experiment.run import standalone

        folder, settings = run_folder.open_run(settings, resume, kind=f"entity{index}", echo=echo_error)
        with run_folder.at_work(folder), PlainLines(Console(stderr=True), rounds=settings.num_rounds) as view:
            accuracy = standalone.run(
                settings,
                index,
                folder,
                registry=registry,
                vault=vault,
                identity=home,
                invitation=invitation,
                patience=patience,
                ca=ca,
                ask=_ask if sys.stdin.isatty() else None,
                progress=view,
                echo=view.echo,
            )
    print(f"Entity {index} ended with {accuracy:.1%} on the common test set. Its checkpoints are in {folder}")


def _ask(evaluation: Evaluation, round: int) -> bool:
    what = f"round {round}" if round else "the initial checkpoint"
    return typer.confirm(f"Publish {what}, with {evaluation.accuracy:.1%} on the common test set?")
