"""`kuber registry`: the metadata service."""

from pathlib import Path
from typing import Annotated

import typer

from kuber import extras
from kuber.cli.service_options import (
    Certificate,
    DatabaseUrl,
    Host,
    KeepEvents,
    MaxConnections,
    PerAddress,
    PlainHttp,
    Port,
    PrivateKey,
    Rate,
    Secret,
    StopWithStdin,
    parse_age,
)
from kuber.cli.setting_options import Ca
from kuber.domain.address import is_loopback
from kuber.errors import SettingsError
from kuber.settings import expand_home


def registry(
    host: Host = "127.0.0.1",
    port: Port = 5001,
    vault: Annotated[str, typer.Option(metavar="URL", help="URL of the vault.")] = "http://127.0.0.1:5002",
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the database.")] = Path("hub/registry"),
    database: DatabaseUrl = None,
    secret: Secret = Path("hub/secret"),
    open_enrolment: Annotated[
        bool, typer.Option(show_default=False, help="Let any entity on this machine join without an invitation.")
    ] = False,
    keep_best: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Records to keep per entity and task: the latest and the K most accurate; 0: all.",
        ),
    ] = 0,
    keep_events: KeepEvents = None,
    requests_per_minute: Rate = 30_000,
    max_connections: MaxConnections = 0,
    max_connections_per_address: PerAddress = 256,
    certificate: Certificate = None,
    private_key: PrivateKey = None,
    ca: Ca = None,
    plain_http: PlainHttp = False,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Serve the registry: entities, knowledge and deliveries."""
    extras.require("The registry", "hub")
    from kuber.services.http.auth import hub_secret
    from kuber.services.http.connection_limits import ConnectionLimits
    from kuber.services.http.server import serve
    from kuber.services.registry.app import open_registry

    if open_enrolment and not is_loopback(host):
        raise SettingsError(
            "--open-enrolment needs a loopback address; elsewhere, invite entities with `kuber hub invite`."
        )
    age = parse_age("--keep-events", keep_events)
    serve(
        "registry",
        lambda: open_registry(
            expand_home(data),
            vault=vault,
            secret=hub_secret(expand_home(secret)),
            database=database,
            open_enrolment=open_enrolment,
            keep_best=keep_best,
            keep_events=age,
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
    )
