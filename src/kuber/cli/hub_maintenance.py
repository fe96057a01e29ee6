"""`kuber hub`: collect, scrub, check, back up and restore the stored data."""

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

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
from kuber.cli.terminal import say


def collect(vault: VaultUrl = DEFAULT_VAULT, admin_token: AdminToken = OPERATOR_TOKEN, ca: Ca = None) -> None:
    """Remove unreferenced blobs now. The vault also does so on a schedule."""
    with open_vault(vault, credentials_of(None, admin_token), ca) as client:
        done = client.collect()
    say(f"Removed {done.blobs} blobs ({done.size} bytes) and {done.leftovers} unfinished uploads.")


def scrub(vault: VaultUrl = DEFAULT_VAULT, admin_token: AdminToken = OPERATOR_TOKEN, ca: Ca = None) -> None:
    """Hash every stored blob again and set damaged ones aside. Exits with 1 if there were any."""
    blobs = size = rotten = 0
    cursor = None
    with open_vault(vault, credentials_of(None, admin_token), ca) as client:
        while True:
            part = client.scrub(cursor=cursor)
            blobs, size, rotten = blobs + part.blobs, size + part.size, rotten + len(part.rotten)
            for rot in part.rotten:
                say(f"{rot.digest} is {rot.fault}; {rot.holders} records name it: upload it again.")
            cursor = part.cursor
            if cursor is None:
                break
    say(f"Hashed {blobs} blobs ({size} bytes); {rotten} were damaged.")
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
        typer.Option(min=0, max=366 * 86400, metavar="SECONDS", help="Do not unpin younger pins than this."),
    ] = 3600,
    registry_data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the registry. (default: that of the operator's token)"),
    ] = None,
    vault_data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the vault. (default: vault, beside the registry's)")
    ] = None,
    registry_database: Annotated[
        str | None, typer.Option(metavar="URL", help="PostgreSQL database of the registry, to check that too.")
    ] = None,
    vault_database: Annotated[
        str | None, typer.Option(metavar="URL", help="PostgreSQL database of the vault, to check that too.")
    ] = None,
    backup: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Backup to compare with. (default: the last one)")
    ] = None,
) -> None:
    """Check the databases, and that registry and vault agree. Exits with 1 if a fault or disagreement is left."""
    from kuber.client.consistency import compare

    registry_data = registry_data or admin_token.parent
    urls = {"registry": registry_database, "vault": vault_database}
    intact = _check_databases(registry_data, vault_data or registry_data.parent / "vault", backup, urls)
    with open_hub(registry, vault, None, admin_token, ca) as (records, blobs):
        found = compare(records, blobs, now=datetime.now(UTC), settled=timedelta(seconds=settled), repair=repair)
    for fault in found.faults:
        say(fault.sentence + (" Repaired." if fault.repaired else ""))
    say(f"{found.records} records, {found.blobs} blobs, {found.pins} pins; {len(found.faults)} disagreements.")
    if not intact or not all(fault.repaired for fault in found.faults):
        raise typer.Exit(1)


def _check_databases(registry_data: Path, vault_data: Path, backup: Path | None, urls: dict[str, str | None]) -> bool:
    """Check the databases on this machine and these servers, print what is wrong, and return whether nothing is."""
    if importlib.util.find_spec("sqlalchemy") is None:  # an entity's installation has no services
        return True
    from kuber.services.database_check import check_databases, check_server_databases

    intact = True
    for report in check_server_databases(urls):
        for fault in report.faults:
            say(f"{report.database}: {fault}")
        say(f"{report.database}: checked {', '.join(report.checked)}; {len(report.faults)} faults.")
        for part in report.unchecked:
            say(f"{report.database}: NOT checked: {part}.")
        intact &= not report.faults
    found = check_databases(registry_data, vault_data, backup=backup)
    for sentence in found.faults:
        say(sentence)
    if not found.checked and not any(urls.values()):
        say(
            f"The databases are not checked: {registry_data} holds none; on their machine, name their folders with "
            "--registry-data and --vault-data, or databases on PostgreSQL with --registry-database and "
            "--vault-database."
        )
    elif found.checked and not found.faults:
        compared = "no backup is known" if found.compared_with is None else f"as whole as {found.compared_with}"
        say(f"{' and '.join(path.name for path in found.checked)} are sound; {compared}.")
    return intact and not found.faults
