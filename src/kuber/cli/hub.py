"""`kuber hub`: commands for the operator of a registry and a vault."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from kuber.cli.audit_lines import audit_line, json_line, time_of
from kuber.cli.hub_options import (
    DEFAULT_REGISTRY,
    DEFAULT_VAULT,
    OPERATOR_TOKEN,
    AdminToken,
    RegistryUrl,
    VaultUrl,
    as_operator,
    token_in,
)
from kuber.cli.setting_options import Ca, with_settings
from kuber.cli.terminal import say, say_error
from kuber.domain.auth import VERIFIER_TOKEN_FILE
from kuber.domain.entity_names import form_of
from kuber.domain.event import utc_now
from kuber.errors import SettingsError
from kuber.settings import Settings
from kuber.views.formatting import printable

hub = typer.Typer(help="Operate a hub: a registry and its vault.", no_args_is_help=True, rich_markup_mode=None)

SHORT_PIN = 12  # digits that are shown
VERIFIER_TOKEN = Path("hub/registry") / VERIFIER_TOKEN_FILE
SecretSet = Annotated[
    Path | None,
    typer.Option(
        "--secret-set", metavar="FILE", help="Your own samples (.npz with x, y), instead of the common test set."
    ),
]


@hub.command()
def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the entity; that of `kuber entity 0` is 0.")],
    days: Annotated[
        float, typer.Option(min=0.001, max=366, metavar="X", help="Days for which the invitation is valid.")
    ] = 7.0,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Invite an entity: print the code that it joins with. The code cannot be shown again."""
    with as_operator(registry, admin_token, ca) as operator:
        taken = next((member for member in operator.entities() if member.name == form_of(name)), None)
        if taken is not None:
            say_error(
                f"warning: {printable(name)} has joined already, on {taken.registered_at:%Y-%m-%d}: the name belongs "
                "to the key in that entity's folder, which needs no invitation, and no other key can use one. If the "
                f"folder is lost: {shlex.join(['kuber', 'hub', 'rekey', name])}"
            )
        say(operator.invite(name, days=days))


@hub.command()
def rekey(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the entity.")],
    days: Annotated[
        float, typer.Option(min=0.001, max=366, metavar="X", help="Days for which the code is valid.")
    ] = 7.0,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Allow a new key for an entity that has lost its folder.

    Prints the code that its owner joins with.
    """
    with as_operator(registry, admin_token, ca) as operator:
        say(operator.allow_new_key(operator.entity(name).id, days=days))


@hub.command()
def invitations(
    void: Annotated[bool, typer.Option("--void", help="Make all open invitations useless.")] = False,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """List the last invitations, without their codes, latest first."""
    now = utc_now()
    with as_operator(registry, admin_token, ca) as operator:
        found = operator.invitations()
        if void:
            operator.void_invitations()
    for invitation in found:
        is_open = invitation.used_at is None and invitation.expires_at > now
        state = "used" if invitation.used_at else "open" if is_open and not void else "void" if is_open else "expired"
        say(f"{invitation.made_at:%Y-%m-%dT%H:%M:%SZ} {state} {printable(invitation.name)}")


@hub.command()
def revoke(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the entity.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Revoke the tokens of all entities.")] = False,
    block: Annotated[
        bool, typer.Option(show_default=False, help="Also prevent the entity from enrolling again.")
    ] = False,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Revoke an entity's tokens. Unless it is blocked, it gets a new one by proving its key."""
    if (name is None) != every or (every and block):
        raise SettingsError("Name one entity, or give --all without --block.")
    with as_operator(registry, admin_token, ca) as operator:
        if name is None:
            members = list(operator.entities())
            for member in members:
                operator.revoke(member.id)
            say(f"The tokens of all {len(members)} entities are revoked. The vault notices within 30 s.")
            return
        operator.revoke(operator.entity(name).id, block=block)
    blocked = ", and it is blocked" if block else ""
    say(f"The tokens of {name} are revoked{blocked}. The vault refuses uploads in 5 s and downloads in 30 s.")


@hub.command()
def withdraw(
    knowledge: Annotated[str, typer.Argument(metavar="ID", help="Id of the record, or its beginning or end.")],
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Withdraw a record: discovery no longer returns it."""
    from kuber.client.short_ids import record_id

    with as_operator(registry, admin_token, ca) as operator:
        knowledge = record_id(operator, knowledge)
        operator.withdraw(knowledge)
    say(f"The record {knowledge} is withdrawn.")


@hub.command()
def quarantine(
    knowledge: Annotated[str, typer.Argument(metavar="ID", help="Id of the record, or its beginning or end.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Reason, in one sentence; it is public.")],
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Exclude a record from discovery until it is released. The verifier cannot release it."""
    from kuber.client.short_ids import record_id

    with as_operator(registry, admin_token, ca) as operator:
        knowledge = record_id(operator, knowledge)
        operator.quarantine(knowledge, reason)
    say(f"The record {knowledge} is quarantined until `kuber hub release {knowledge}`.")


@hub.command()
def release(
    knowledge: Annotated[str, typer.Argument(metavar="ID", help="Id of the record, or its beginning or end.")],
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """End a record's quarantine. If the verifier imposed it, the record is evaluated again."""
    from kuber.client.short_ids import record_id

    with as_operator(registry, admin_token, ca) as operator:
        knowledge = record_id(operator, knowledge)
        operator.release(knowledge)
    say(f"The record {knowledge} is no longer quarantined.")


@hub.command()
def pins(registry: RegistryUrl = DEFAULT_REGISTRY, admin_token: AdminToken = OPERATOR_TOKEN, ca: Ca = None) -> None:
    """Print the pins of architectures. Each line has a pin, its visible records, a name and its arguments."""
    from kuber.domain.query import MAX_LIMIT, all_pages
    from kuber.views.formatting import printable

    with as_operator(registry, admin_token, ca) as operator:
        for pin in all_pages(lambda cursor: operator.pins(limit=MAX_LIMIT, cursor=cursor)):
            arguments = ", ".join(f"{name}={value}" for name, value in pin.arguments.items())
            say(printable(f"{pin.pin[:SHORT_PIN]} {pin.records} {pin.name}({arguments})"))


@hub.command()
def unpin(
    pin: Annotated[str, typer.Argument(metavar="PIN", help="The pin, or its beginning, as `kuber hub pins` has it.")],
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Remove the pin of an architecture. The next record with its name and arguments pins it to its own tensors."""
    from kuber.domain.query import MAX_LIMIT, all_pages

    with as_operator(registry, admin_token, ca) as operator:
        found = [
            known
            for known in all_pages(lambda cursor: operator.pins(limit=MAX_LIMIT, cursor=cursor))
            if pin and known.pin.startswith(pin)
        ]
        if len(found) != 1:
            count = "no pin" if not found else f"{len(found)} pins"
            raise SettingsError(f"There is {count} that begins with {pin!r}; `kuber hub pins` lists them.")
        operator.unpin(found[0].pin)
    say(f"The pin of {found[0].name!r} is removed; its records stay, and the next one pins it again.")


@hub.command()
def audit(
    entity: Annotated[
        str | None, typer.Option("--entity", metavar="NAME", help="Only changes by or of this entity (or its id).")
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="WORD", help="Only changes of this kind, such as publish.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only changes since this time (UTC), or so long ago: 12h, 3d."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each entry as a line of JSON, with details.")
    ] = False,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Print the audit log of the hub. Each line has a time, an actor, an action and its subject."""
    from kuber.client.short_ids import names_of_entities

    start = None if since is None else time_of(since, now=utc_now())
    with as_operator(registry, admin_token, ca) as operator:
        names = names_of_entities(operator)
        id = None if entity is None else operator.entity(entity).id
        for entry in operator.audit_entries(entity=id, act=action, since=start):
            say(json_line(entry, names) if as_json else audit_line(entry, names))


@hub.command()
@with_settings("dataset", "common_test_size", "data_dir", "cache_dir")
def verifier(
    settings: Settings,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    vault: VaultUrl = DEFAULT_VAULT,
    token: Annotated[
        Path, typer.Option("--token", metavar="FILE", help="File with the verifier's token.")
    ] = VERIFIER_TOKEN,
    secret_set: SecretSet = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=FILE",
            show_default=False,
            help="Samples (.npz with x, y) for the records on another task; may be given several times.",
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Seconds between two checks for new records.")
    ] = 5.0,
    once: Annotated[
        bool, typer.Option(show_default=False, help="Exit when every pending record has been evaluated.")
    ] = False,
    cpu_seconds: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="CPU seconds allowed per model.")] = 60,
    memory_bytes: Annotated[
        int, typer.Option(min=1 << 20, metavar="BYTES", help="Bytes of memory allowed per model.")
    ] = 2 << 30,
    ca: Ca = None,
) -> None:
    """Verify the claims of published knowledge. Evaluates each new record and reports its verdict to the registry."""
    from kuber.verifier.sandboxed_evaluation import Limits
    from kuber.verifier.service import run_verifier

    run_verifier(
        settings,
        registry=registry,
        vault=vault,
        token=token_in(token),
        secret_set=secret_set,
        sample_files=samples or [],
        limits=Limits(cpu_seconds=cpu_seconds, memory_bytes=memory_bytes, seconds=2.0 * cpu_seconds),
        pause=None if once else every,
        ca=ca,
        echo=say,
    )
