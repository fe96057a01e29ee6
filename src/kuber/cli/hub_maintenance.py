"""`kuber hub`: collect, scrub, check, back up and restore the stored data."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from kuber import extras
from kuber.cli.hub_options import (
    DEFAULT_REGISTRY,
    DEFAULT_VAULT,
    OPERATOR_TOKEN,
    AdminToken,
    RegistryUrl,
    VaultUrl,
    credentials_of,
    open_hub,
    open_vault,
)
from kuber.cli.setting_options import Ca

RegistryData = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the registry's database.")]
VaultData = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the vault's blobs and their index.")]

REGISTRY_DATA, VAULT_DATA = Path("hub/registry"), Path("hub/vault")


def collect(vault: VaultUrl = DEFAULT_VAULT, admin_token: AdminToken = OPERATOR_TOKEN, ca: Ca = None) -> None:
    """Remove unreferenced blobs now. The vault also does so on a schedule."""
    with open_vault(vault, credentials_of(None, admin_token), ca) as client:
        done = client.collect()
    print(f"Removed {done.blobs} blobs ({done.size} bytes) and {done.leftovers} unfinished uploads.")


def scrub(vault: VaultUrl = DEFAULT_VAULT, admin_token: AdminToken = OPERATOR_TOKEN, ca: Ca = None) -> None:
    """Hash every stored blob again and set damaged ones aside. Exits with 1 if there were any."""
    blobs = size = rotten = 0
    cursor = None
    with open_vault(vault, credentials_of(None, admin_token), ca) as client:
        while True:
            part = client.scrub(cursor=cursor)
            blobs, size, rotten = blobs + part.blobs, size + part.size, rotten + len(part.rotten)
            for rot in part.rotten:
                print(f"{rot.digest} is {rot.fault}; {rot.holders} records name it: upload it again.")
            cursor = part.cursor
            if cursor is None:
                break
    print(f"Hashed {blobs} blobs ({size} bytes); {rotten} were damaged.")
    if rotten:
        raise typer.Exit(1)


def check(
    registry: RegistryUrl = DEFAULT_REGISTRY,
    vault: VaultUrl = DEFAULT_VAULT,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Pin what records name, and unpin what no record names.")
    ] = False,
    settled: Annotated[
        float,
        typer.Option(min=0, max=366 * 86400, metavar="SECONDS", help="Ignore pins younger than this many seconds."),
    ] = 3600,
) -> None:
    """Check that registry and vault agree. Exits with 1 if a disagreement is left."""
    from kuber.client.consistency import compare

    with open_hub(registry, vault, None, admin_token, ca) as (records, blobs):
        found = compare(records, blobs, now=datetime.now(UTC), settled=timedelta(seconds=settled), repair=repair)
    for fault in found.faults:
        print(fault.sentence + (" Repaired." if fault.repaired else ""))
    print(f"{found.records} records, {found.blobs} blobs, {found.pins} pins; {len(found.faults)} disagreements.")
    if not all(fault.repaired for fault in found.faults):
        raise typer.Exit(1)


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
    _report("Backed up", done.records, done.blobs, done.size, done.lacking)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.")],
    registry_data: RegistryData = REGISTRY_DATA,
    vault_data: VaultData = VAULT_DATA,
) -> None:
    """Restore a backup to new or empty folders. Exits with 1 if a blob is missing or damaged."""
    extras.require("A backup", "hub")
    from kuber.services.backup import restore

    done = restore(folder, registry=registry_data, vault=vault_data)
    _report("Restored", done.records, done.blobs, done.size, done.lacking)


def _report(done: str, records: int, blobs: int, size: int, lacking: tuple[str, ...]) -> None:
    for digest in lacking:
        print(f"{digest} is missing or damaged, but a record names it: upload it again.")
    print(f"{done} {records} records and {blobs} blobs ({size} bytes).")
    if lacking:
        raise typer.Exit(1)
