"""`kuber vault`: the blob service."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from kuber import extras
from kuber.cli.service_options import (
    Certificate,
    DatabaseUrl,
    Host,
    MaxConnections,
    PerAddress,
    PlainHttp,
    Port,
    PrivateKey,
    Rate,
    Secret,
    StopWithStdin,
)
from kuber.cli.setting_options import Ca
from kuber.settings import expand_home

_YEAR = 366 * 86400


def _seconds(help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0, max=_YEAR, metavar="SECONDS", help=help)
    return option


def vault(
    host: Host = "127.0.0.1",
    port: Port = 5002,
    registry: Annotated[str, typer.Option(metavar="URL", help="URL of the registry.")] = "http://127.0.0.1:5001",
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the blobs and their index.")] = Path(
        "hub/vault"
    ),
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Bucket for the blobs, such as s3://bucket/prefix, instead of --data."),
    ] = None,
    direct: Annotated[
        bool,
        typer.Option(
            show_default=False, help="Let entities transfer blobs directly to and from the bucket, by presigned URLs."
        ),
    ] = False,
    direct_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Endpoint at which entities reach the bucket.")
    ] = None,
    database: DatabaseUrl = None,
    secret: Secret = Path("hub/secret"),
    max_blob_bytes: Annotated[int, typer.Option(min=1, metavar="BYTES", help="Largest accepted blob, in bytes.")] = 2
    << 30,
    entity_quota: Annotated[
        int, typer.Option(min=0, metavar="BYTES", help="Bytes that each entity may store; 0: no limit.")
    ] = 0,
    total_quota: Annotated[
        int, typer.Option(min=0, metavar="BYTES", help="Bytes that all entities together may store; 0: no limit.")
    ] = 0,
    keep_free: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="BYTES", help="Bytes of the disk to leave free; 5 % of it, at most 1 GiB, if not set."
        ),
    ] = None,
    requests_per_minute: Rate = 30_000,
    max_connections: MaxConnections = 0,
    max_connections_per_address: PerAddress = 256,
    certificate: Certificate = None,
    private_key: PrivateKey = None,
    ca: Ca = None,
    plain_http: PlainHttp = False,
    lease: Annotated[float, _seconds("Seconds that an upload is kept before a record must name it.")] = 3600,
    grace: Annotated[float, _seconds("Seconds from the end of lease and pins until a blob is removed.")] = 3600,
    collect_every: Annotated[float, _seconds("Seconds between two garbage collections; 0: only on request.")] = 600,
    upload_expiry: Annotated[
        float, _seconds("Seconds without data after which an interrupted upload is discarded.")
    ] = 86400,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Serve the vault: blobs, named by their digests."""
    extras.require("The vault", "hub")
    from kuber.services.http.auth import hub_secret
    from kuber.services.http.connection_limits import ConnectionLimits
    from kuber.services.http.server import serve
    from kuber.services.vault.app import CollectionSchedule, open_vault

    schedule = CollectionSchedule(
        lease=timedelta(seconds=lease),
        grace=timedelta(seconds=grace),
        period=timedelta(seconds=collect_every),
        upload_expiry=timedelta(seconds=upload_expiry),
    )
    serve(
        "vault",
        lambda: open_vault(
            expand_home(data),
            registry=registry,
            secret=hub_secret(expand_home(secret)),
            database=database,
            max_blob_bytes=max_blob_bytes,
            entity_quota=entity_quota,
            total_quota=total_quota,
            keep_free=keep_free,
            schedule=schedule,
            bucket=store,
            direct=direct,
            direct_url=direct_url,
            ca=ca,
            requests_per_minute=requests_per_minute,
        ),
        host=host,
        port=port,
        certificate=certificate,
        private_key=private_key,
        plain_http=plain_http,
        stop_with_stdin=stop_with_stdin,
        limits=ConnectionLimits(in_all=max_connections, per_address=max_connections_per_address),
        descriptors_each=2,  # a blob beside each connection
    )
