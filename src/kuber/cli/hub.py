"""`kuber hub`: what the operator of a registry and a vault does."""

from pathlib import Path
from typing import Annotated

import typer

from kuber.cli.setting_options import Ca, with_settings
from kuber.domain.auth import OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE
from kuber.errors import SettingsError
from kuber.settings import Settings

hub = typer.Typer(help="Operate a hub: a registry and its vault.", no_args_is_help=True)

RegistryUrl = Annotated[str, typer.Option("--registry", metavar="URL", help="The registry of the hub.")]
VaultUrl = Annotated[str, typer.Option("--vault", metavar="URL", help="The vault of the hub.")]
AdminToken = Annotated[
    Path,
    typer.Option("--admin-token", metavar="FILE", help="File of the operator's token."),
]
REGISTRY_HERE, VAULT_HERE = "http://127.0.0.1:5001", "http://127.0.0.1:5002"
TOKEN = Path("hub/registry") / OPERATOR_TOKEN_FILE
VERIFIER = Path("hub/registry") / VERIFIER_TOKEN_FILE
SecretSet = Annotated[
    Path | None,
    typer.Option("--secret-set", metavar="FILE", help="Samples of your own (.npz: x, y) instead of the common ones."),
]


@hub.command()
def invite(
    name: Annotated[str, typer.Argument(help="Name of the entity; those of `kuber entity 0` are 0, 1, ...")],
    days: Annotated[float, typer.Option(min=0.001, max=366, help="How long the invitation holds.")] = 7.0,
    registry: RegistryUrl = REGISTRY_HERE,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Invite an entity: prints the code that it joins with, once."""
    from kuber.client.admin import AdminClient

    with AdminClient(registry, token_in(admin_token), ca=ca) as operator:
        print(operator.invite(name, days=days))


@hub.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the entity.")],
    block: Annotated[bool, typer.Option(help="Let it enrol no more either.")] = False,
    registry: RegistryUrl = REGISTRY_HERE,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """End the tokens of an entity; unless it is blocked it gets a new one by proving its key."""
    from kuber.client.admin import AdminClient

    with AdminClient(registry, token_in(admin_token), ca=ca) as operator:
        operator.revoke(operator.entity(name).id, block=block)
    print(f"The tokens of {name} are revoked{', and it is shut out' if block else ''}; a vault forgets them in 30 s.")


@hub.command()
def withdraw(
    knowledge: Annotated[str, typer.Argument(help="Id of the record.")],
    registry: RegistryUrl = REGISTRY_HERE,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Take a record back, whoever published it: it is found no more."""
    from kuber.client.admin import AdminClient

    with AdminClient(registry, token_in(admin_token), ca=ca) as operator:
        operator.withdraw(knowledge)
    print(f"The record {knowledge} is withdrawn.")


@hub.command()
def quarantine(
    knowledge: Annotated[str, typer.Argument(help="Id of the record.")],
    reason: Annotated[str, typer.Option(help="Why, in one sentence that everybody may read.")],
    registry: RegistryUrl = REGISTRY_HERE,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Have a record found no more, whatever the verifier finds, until it is released."""
    from kuber.client.admin import AdminClient

    with AdminClient(registry, token_in(admin_token), ca=ca) as operator:
        operator.quarantine(knowledge, reason)
    print(f"The record {knowledge} is quarantined; `kuber hub release {knowledge}` ends that.")


@hub.command()
def release(
    knowledge: Annotated[str, typer.Argument(help="Id of the record.")],
    registry: RegistryUrl = REGISTRY_HERE,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """End the quarantine of a record, also one by the verifier, which then looks again."""
    from kuber.client.admin import AdminClient

    with AdminClient(registry, token_in(admin_token), ca=ca) as operator:
        operator.release(knowledge)
    print(f"The record {knowledge} is quarantined no more.")


@hub.command()
def audit(registry: RegistryUrl = REGISTRY_HERE, admin_token: AdminToken = TOKEN, ca: Ca = None) -> None:
    """Print every change of the hub, one a line: time, who, what, of what."""
    from kuber.client.admin import AdminClient

    with AdminClient(registry, token_in(admin_token), ca=ca) as operator:
        cursor = None
        while True:
            page = operator.audit(limit=1000, cursor=cursor)
            for entry in page.items:
                print(f"{entry.time:%Y-%m-%dT%H:%M:%SZ} {entry.actor} {entry.act} {entry.subject}")
            cursor = page.cursor
            if cursor is None:
                return


@hub.command()
@with_settings("dataset", "common_test_size", "data_dir", "cache_dir")
def verifier(
    settings: Settings,
    registry: RegistryUrl = REGISTRY_HERE,
    vault: VaultUrl = VAULT_HERE,
    token: Annotated[Path, typer.Option("--token", metavar="FILE", help="File of the verifier's token.")] = VERIFIER,
    secret_set: SecretSet = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at what is new.")] = 5.0,
    once: Annotated[bool, typer.Option(help="End when all that is there was examined.")] = False,
    cpu_seconds: Annotated[int, typer.Option(min=1, help="Of a processor, for one model.")] = 60,
    memory_bytes: Annotated[int, typer.Option(min=1 << 20, help="For one model.")] = 2 << 30,
    ca: Ca = None,
) -> None:
    """Evaluate what is published, and tell the registry whether the claims hold."""
    from kuber.verifier.sandboxed_evaluation import Limits
    from kuber.verifier.service import run_verifier

    run_verifier(
        settings,
        registry=registry,
        vault=vault,
        token=token_in(token),
        secret_set=secret_set,
        limits=Limits(cpu_seconds=cpu_seconds, memory_bytes=memory_bytes, seconds=2.0 * cpu_seconds),
        pause=None if once else every,
        ca=ca,
        echo=print,
    )


def token_in(path: Path) -> str:
    """The token in a file that the registry wrote. SettingsError when it cannot be read."""
    try:
        return path.expanduser().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            f"The token cannot be read from {path}; the registry writes it into its folder: say where that is."
        ) from None
