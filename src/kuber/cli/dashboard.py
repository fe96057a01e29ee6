"""`kuber dashboard`: a hub on web pages."""

from pathlib import Path
from typing import Annotated

import typer

from kuber import extras
from kuber.cli.hub_options import (
    DEFAULT_REGISTRY,
    DEFAULT_VAULT,
    OPERATOR_TOKEN,
    AdminToken,
    IdentityFolder,
    RegistryUrl,
    VaultUrl,
    credentials_of,
)
from kuber.cli.service_options import Certificate, Host, PlainHttp, Port, PrivateKey, StopWithStdin
from kuber.cli.setting_options import Ca
from kuber.settings import expand_home

PORT = 5003


def dashboard(
    registry: RegistryUrl = DEFAULT_REGISTRY,
    vault: VaultUrl = DEFAULT_VAULT,
    identity: IdentityFolder = None,
    admin_token: AdminToken = OPERATOR_TOKEN,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the runs to show.")] = Path("runs"),
    entities_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the entities of kuber.Entity whose reports to show: entities, for this machine only.",
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    certificate: Certificate = None,
    private_key: PrivateKey = None,
    ca: Ca = None,
    plain_http: PlainHttp = False,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Serve web pages of a hub: entities, knowledge, lineage, runs."""
    extras.require("The dashboard", "dashboard", "hub")
    from kuber.client.registry import HttpRegistry
    from kuber.client.vault import HttpVault
    from kuber.dashboard.app import open_dashboard
    from kuber.domain.address import is_loopback
    from kuber.entity.state.entity_folder import ROOT
    from kuber.entity.state.pinned_keys import read_pinned_keys
    from kuber.services.http.server import serve

    if entities_dir is None and is_loopback(host):  # a report is its owner's: others see it only if he says so
        entities_dir = ROOT
    credentials = credentials_of(identity, admin_token)
    pinned_keys = {} if identity is None else read_pinned_keys(identity)
    with (
        # No retries here: pages show at once that the hub is unreachable, and the feed reconnects.
        HttpRegistry(registry, credentials=credentials, patience=0, ca=ca) as records,
        HttpVault(vault, credentials=credentials, ca=ca) as blobs,
    ):
        serve(
            "dashboard",
            lambda: open_dashboard(
                records,
                blobs,
                runs=expand_home(runs_dir),
                entities=None if entities_dir is None else expand_home(entities_dir),
                host=host,
                ca=ca,
                pinned_keys=pinned_keys,
            ),
            host=host,
            port=port,
            certificate=certificate,
            private_key=private_key,
            plain_http=plain_http,
            stop_with_stdin=stop_with_stdin,
            lifespan="on",
        )
