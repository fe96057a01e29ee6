"""`kuber entity`: one entity that joins a running registry and vault."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from kuber import tracing
from kuber.cli.console import Console
from kuber.cli.hub_options import DEFAULT_REGISTRY, DEFAULT_VAULT, RegistryUrl, VaultUrl
from kuber.cli.run_progress import PlainLines
from kuber.cli.setting_options import Ca, with_settings
from kuber.cli.terminal import say, say_error
from kuber.domain.evaluation import Evaluation
from kuber.settings import Settings

Index = Annotated[
    int, typer.Argument(metavar="INDEX", min=0, help="Number of the entity and its part of the data, from 0.")
]
Resume = Annotated[Path | None, typer.Option("--resume", metavar="DIR", help="Folder of an entity to resume.")]
Invitation = Annotated[
    str | None, typer.Option("--invitation", metavar="CODE", help="Invitation code from the hub's operator.")
]
IdentityFolder = Annotated[
    Path | None,
    typer.Option(
        "--identity", metavar="DIR", help="Folder of the entity's key and token. (default: identities/INDEX)"
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        "--patience",
        metavar="SECONDS",
        min=0,
        max=3600,
        help="Seconds to retry an unreachable hub; then continue alone.",
    ),
]
ChangeKey = Annotated[bool, typer.Option("--change-key", help="Rotate the signing key and exit.")]

_PATIENCE = 10.0  # seconds
_NOT_HERE = {"host", "registry_port", "vault_port"}


@with_settings(*(name for name in Settings.model_fields if name not in _NOT_HERE))
def entity(
    index: Index,
    settings: Settings | None,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    vault: VaultUrl = DEFAULT_VAULT,
    resume: Resume = None,
    invitation: Invitation = None,
    identity: IdentityFolder = None,
    patience: Patience = _PATIENCE,
    ca: Ca = None,
    change_key: ChangeKey = False,
) -> None:
    """Train one entity, exchanging knowledge through a running hub."""
    home = identity or Path("identities") / str(index)
    if change_key:
        from kuber.client import key_rotation

        member = key_rotation.change_key(home, str(index), registry, patience=patience, ca=ca)
        say(f"Entity {index} signs with {member.keys[-1].public_key} from its record {member.keys[-1].since} on.")
        return

    from kuber.client.credentials import TOKEN_FILE

    with tracing.traced("kuber-entity"):  # before torch is loaded, so that a missing package is reported at once
        from kuber.experiment import run_folder
        from kuber.experiment.run import standalone

        folder, settings = run_folder.open_run(settings, resume, kind=f"entity{index}", echo=say_error)
        try:
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
                    approve=_ask if sys.stdin.isatty() else None,
                    progress=view,
                    echo=view.echo,
                )
        except KeyboardInterrupt:
            options = {
                "--resume": folder,
                "--identity": None if identity is None else identity.resolve(),
                "--registry": None if registry == DEFAULT_REGISTRY else registry,
                "--vault": None if vault == DEFAULT_VAULT else vault,
                "--invitation": None if (home / TOKEN_FILE).exists() else invitation,
                "--patience": None if patience == _PATIENCE else patience,
                "--ca": None if ca is None else ca.resolve(),
            }
            words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
            say_error(f"Interrupted. Resume with: {shlex.join(['kuber', 'entity', str(index), *words])}")
            raise
    say(f"Entity {index} ended with {accuracy:.1%} on the common test set. Its checkpoints are in {folder}")


def _ask(evaluation: Evaluation, round: int) -> bool:
    model = f"round {round}" if round else "the initial checkpoint"
    return typer.confirm(f"Publish {model}, with {evaluation.accuracy:.1%} on the common test set?")
