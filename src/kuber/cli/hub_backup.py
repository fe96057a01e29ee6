"""`kuber hub`: back up and restore the data of both services."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kuber import extras
from kuber.cli.terminal import say

if TYPE_CHECKING:
    from kuber.services.backup_manifest import Manifest, Members

RegistryData = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the registry's database.")]
VaultData = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the vault's blobs and their index.")]

REGISTRY_DATA, VAULT_DATA = Path("hub/registry"), Path("hub/vault")


def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New or empty folder for the backup.")],
    registry_data: RegistryData = REGISTRY_DATA,
    vault_data: VaultData = VAULT_DATA,
    copy: Annotated[bool, typer.Option("--copy", help="Copy blobs even where hard links are possible.")] = False,
) -> None:
    """Back up the data of both services, which may be running. Exits with 1 if a blob is missing."""
    extras.require("A backup", "hub")
    from kuber.services.backup import backup

    done = backup(folder, registry=registry_data, vault=vault_data, copy=copy)
    _print_lacking(done.lacking)
    say(f"Backed up {done.records} records and {done.blobs} blobs ({done.size} bytes).")
    if done.lacking:
        raise typer.Exit(1)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.")],
    registry_data: RegistryData = REGISTRY_DATA,
    vault_data: VaultData = VAULT_DATA,
    revoke_tokens: Annotated[
        bool, typer.Option("--revoke-tokens", help="Revoke all tokens; entities get new ones by their keys.")
    ] = False,
    void_invitations: Annotated[
        bool, typer.Option("--void-invitations", help="Make all open invitations useless.")
    ] = False,
) -> None:
    """Restore a backup to new or empty folders. Exits with 1 if a blob is missing or damaged.

    Tokens and invitations are as they were: also those that were revoked or used since. On a terminal the command
    asks whether to end them.
    """
    extras.require("A backup", "hub")
    from kuber.services.backup import REGISTRY, restore

    done, manifest = restore(folder, registry=registry_data, vault=vault_data)
    _print_lacking(done.lacking)
    age = _age(datetime.now(UTC) - manifest.made_at)
    say(f"Restored {done.records} records and {done.blobs} blobs ({done.size} bytes).")
    say(f"The backup was made {age} ago, at {manifest.made_at:%Y-%m-%d %H:%M} UTC; what came later is not in it.")
    members = manifest.members
    say(f"{_number(members.entities, 'entity', 'entities')} came back{_names(members)}.")
    end_tokens, end_invitations = revoke_tokens, void_invitations
    if sys.stdin.isatty() and sys.stdout.isatty():
        end_tokens = end_tokens or _asks(members.tokens, "token", "tokens", "revoked", "Revoke")
        end_invitations = end_invitations or _asks(members.invitations, "invitation", "invitations", "used", "Void")
    if end_tokens or end_invitations:
        from kuber.services.registry.access import end_access

        ended = end_access(registry_data / REGISTRY, tokens=end_tokens, invitations=end_invitations)
        if end_tokens:
            say(f"The tokens of {_number(ended.tokens, 'entity', 'entities')} are revoked, and the operator's.")
        if end_invitations:
            say(f"{_number(ended.invitations, 'invitation', 'invitations')} can no longer be used.")
    _print_what_is_valid(manifest, end_tokens, end_invitations)
    if done.lacking:
        raise typer.Exit(1)


def _print_what_is_valid(manifest: "Manifest", ended_tokens: bool, ended_invitations: bool) -> None:
    """Print what is valid again, and the commands that end it."""
    members = manifest.members
    if members.tokens and not ended_tokens:
        say(
            f"{_number(members.tokens, 'token', 'tokens')} are valid as before, also those revoked since. "
            "To revoke them, once the registry runs: kuber hub revoke --all"
        )
    if members.invitations and not ended_invitations:
        say(
            f"{_number(members.invitations, 'invitation', 'invitations')} can be used, also those used since. "
            "To make them useless, once the registry runs: kuber hub invitations --void"
        )
    if members.entities:
        say("An entity that was blocked since is not. To block it again: kuber hub revoke NAME --block")


def _asks(count: int, singular: str, plural: str, since: str, verb: str) -> bool:
    if not count:
        return False
    return typer.confirm(
        f"{_number(count, singular, plural)} can be used again, also those {since} since. {verb} them?", default=True
    )


def _names(members: "Members") -> str:
    from kuber.views.formatting import printable

    if not members.names:
        return ""
    more = members.entities - len(members.names)
    return f": {', '.join(map(printable, members.names))}" + (f" and {more} more" if more > 0 else "")


def _number(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"


def _age(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for length, singular, plural in ((86400, "day", "days"), (3600, "hour", "hours"), (60, "minute", "minutes")):
        if seconds >= length:
            return _number(seconds // length, singular, plural)
    return _number(seconds, "second", "seconds")


def _print_lacking(lacking: Sequence[str]) -> None:
    for digest in lacking:
        say(f"{digest} is missing or damaged, but a record names it: upload it again.")
