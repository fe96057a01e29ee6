"""`kuber hub`: what the operator of a registry and a vault does."""

from pathlib import Path
from typing import Annotated

import typer

from kuber.cli.options import Ca
from kuber.domain.access import OPERATOR_TOKEN_FILE
from kuber.errors import SettingsError

hub = typer.Typer(help="Operate a hub: a registry and its vault.", no_args_is_help=True)

RegistryUrl = Annotated[str, typer.Option("--registry", metavar="URL", help="The registry of the hub.")]
AdminToken = Annotated[
    Path,
    typer.Option("--admin-token", metavar="FILE", help="File of the operator's token."),
]
AT_HOME = "http://127.0.0.1:5001"
TOKEN = Path("hub/registry") / OPERATOR_TOKEN_FILE


@hub.command()
def invite(
    name: Annotated[str, typer.Argument(help="Name of the entity; those of `kuber entity 0` are 0, 1, ...")],
    days: Annotated[float, typer.Option(min=0.001, max=366, help="How long the invitation holds.")] = 7.0,
    registry: RegistryUrl = AT_HOME,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Invite an entity: prints the code that it joins with, once."""
    from kuber.client.operator import Operator

    with Operator(registry, _token(admin_token), ca=ca) as operator:
        print(operator.invite(name, days=days))


@hub.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the entity.")],
    block: Annotated[bool, typer.Option(help="Let it enrol no more either.")] = False,
    registry: RegistryUrl = AT_HOME,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """End the tokens of an entity; unless it is blocked it gets a new one by proving its key."""
    from kuber.client.operator import Operator

    with Operator(registry, _token(admin_token), ca=ca) as operator:
        operator.revoke(operator.entity(name).id, block=block)
    print(f"The tokens of {name} are revoked{', and it is shut out' if block else ''}; a vault forgets them in 30 s.")


@hub.command()
def withdraw(
    knowledge: Annotated[str, typer.Argument(help="Id of the record.")],
    registry: RegistryUrl = AT_HOME,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Take a record back, whoever published it: it is found no more."""
    from kuber.client.operator import Operator

    with Operator(registry, _token(admin_token), ca=ca) as operator:
        operator.withdraw(knowledge)
    print(f"The record {knowledge} is withdrawn.")


@hub.command()
def audit(registry: RegistryUrl = AT_HOME, admin_token: AdminToken = TOKEN, ca: Ca = None) -> None:
    """Print every change of the hub, one a line: time, who, what, of what."""
    from kuber.client.operator import Operator

    with Operator(registry, _token(admin_token), ca=ca) as operator:
        cursor = None
        while True:
            page = operator.audit(limit=1000, cursor=cursor)
            for entry in page.items:
                print(f"{entry.time:%Y-%m-%dT%H:%M:%SZ} {entry.actor} {entry.act} {entry.subject}")
            cursor = page.cursor
            if cursor is None:
                return


def _token(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            f"The operator's token cannot be read from {path}; the registry writes it into its folder, "
            "name it with --admin-token."
        ) from None
