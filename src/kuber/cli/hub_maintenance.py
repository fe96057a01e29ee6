"""`kuber hub`: what keeps a hub's data whole: collect, scrub, check, backup, restore."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from kuber.cli.hub import REGISTRY_HERE, TOKEN, VAULT_HERE, AdminToken, RegistryUrl, VaultUrl, token_in
from kuber.cli.setting_options import Ca

RegistryData = Annotated[Path, typer.Option(help="Folder of the registry's database.")]
VaultData = Annotated[Path, typer.Option(help="Folder of the vault's blobs and their index.")]

REGISTRY_DATA, VAULT_DATA = Path("hub/registry"), Path("hub/vault")


def collect(vault: VaultUrl = VAULT_HERE, admin_token: AdminToken = TOKEN, ca: Ca = None) -> None:
    """Remove the blobs that no record names, now."""
    from kuber.client.credentials import Credentials
    from kuber.client.vault import HttpVault

    with HttpVault(vault, credentials=Credentials(token=token_in(admin_token)), ca=ca) as client:
        client.check()
        done = client.collect()
    print(f"Removed {done.blobs} blobs ({done.size} bytes) and {done.leftovers} leftovers of uploads.")


def scrub(vault: VaultUrl = VAULT_HERE, admin_token: AdminToken = TOKEN, ca: Ca = None) -> None:
    """Hash every stored blob again; set those aside that rotted. Ends with 1 when there were any."""
    from kuber.client.credentials import Credentials
    from kuber.client.vault import HttpVault

    blobs = size = rotten = 0
    cursor = None
    with HttpVault(vault, credentials=Credentials(token=token_in(admin_token)), ca=ca) as client:
        client.check()
        while True:
            part = client.scrub(cursor=cursor)
            blobs, size, rotten = blobs + part.blobs, size + part.size, rotten + len(part.rotten)
            for rot in part.rotten:
                print(f"{rot.digest} is {rot.fault}; {rot.holders} records hold it: put it again.")
            cursor = part.cursor
            if cursor is None:
                break
    print(f"Hashed {blobs} blobs ({size} bytes); {rotten} were rotten.")
    if rotten:
        raise typer.Exit(1)


def check(
    registry: RegistryUrl = REGISTRY_HERE,
    vault: VaultUrl = VAULT_HERE,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
    repair: Annotated[bool, typer.Option("--repair", help="Pin what records name, unpin what none does.")] = False,
    settled: Annotated[
        float, typer.Option(min=0, max=366 * 86400, help="Seconds after which a pin has its record, if ever.")
    ] = 3600,
) -> None:
    """Prove that registry and vault agree. Ends with 1 when they do not, and it was not put right."""
    from kuber.client.consistency import compare
    from kuber.client.credentials import Credentials
    from kuber.client.registry import HttpRegistry
    from kuber.client.vault import HttpVault

    me = Credentials(token=token_in(admin_token))
    with HttpRegistry(registry, credentials=me, ca=ca) as records, HttpVault(vault, credentials=me, ca=ca) as blobs:
        records.check()
        blobs.check()
        found = compare(records, blobs, now=datetime.now(UTC), settled=timedelta(seconds=settled), repair=repair)
    for fault in found.faults:
        print(fault.sentence + (" Put right." if fault.repaired else ""))
    print(f"{found.records} records, {found.blobs} blobs, {found.pins} pins; {len(found.faults)} disagreements.")
    if not all(fault.repaired for fault in found.faults):
        raise typer.Exit(1)


def backup(
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
    registry_data: RegistryData = REGISTRY_DATA,
    vault_data: VaultData = VAULT_DATA,
    copy: Annotated[bool, typer.Option("--copy", help="Copy blobs also where they could be hard links.")] = False,
) -> None:
    """Copy the data of both services, which may run. Ends with 1 when a record's blob is not there."""
    from kuber.services.backup import backup

    done = backup(folder, registry=registry_data, vault=vault_data, copy=copy)
    _report("Backed up", done.records, done.blobs, done.size, done.lacking)


def restore(
    folder: Annotated[Path, typer.Argument(help="A backup.")],
    registry_data: RegistryData = REGISTRY_DATA,
    vault_data: VaultData = VAULT_DATA,
) -> None:
    """Bring a backup back to new or empty folders, each blob verified. Ends with 1 when one was not sound."""
    from kuber.services.backup import restore

    done = restore(folder, registry=registry_data, vault=vault_data)
    _report("Restored", done.records, done.blobs, done.size, done.lacking)


def _report(done: str, records: int, blobs: int, size: int, lacking: tuple[str, ...]) -> None:
    for digest in lacking:
        print(f"{digest} is named by a record and not there, or damaged: put it again.")
    print(f"{done} {records} records and {blobs} blobs ({size} bytes).")
    if lacking:
        raise typer.Exit(1)
