"""`kuber vault`: the blob service."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

_YEAR = 366 * 86400


def _seconds(help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0, max=_YEAR, help=help)
    return option


def vault(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 5002,
    data: Annotated[Path, typer.Option(help="Folder of the blobs and their index.")] = Path("hub/vault"),
    max_blob_bytes: Annotated[int, typer.Option(min=1, help="Largest blob that is taken.")] = 2 << 30,
    lease: Annotated[float, _seconds("Seconds that an uploaded blob waits for a record to name it.")] = 3600,
    grace: Annotated[float, _seconds("Seconds after lease and last pin until a blob is removed.")] = 3600,
    collect_every: Annotated[float, _seconds("Seconds between two collections; 0: only by hand.")] = 600,
    upload_expiry: Annotated[float, _seconds("Seconds without a byte after which a cut upload is dropped.")] = 86400,
    stop_with_stdin: Annotated[bool, typer.Option(help="Stop when standard input ends.")] = False,
) -> None:
    """Serve the vault: blobs by digest."""
    from kuber.services.serving import serve
    from kuber.services.vault_app import Keeping, open_vault

    keeping = Keeping(
        lease=timedelta(seconds=lease),
        grace=timedelta(seconds=grace),
        period=timedelta(seconds=collect_every),
        upload_expiry=timedelta(seconds=upload_expiry),
    )
    serve(
        "vault",
        lambda: open_vault(data.expanduser(), max_blob_bytes=max_blob_bytes, keeping=keeping),
        host=host,
        port=port,
        stop_with_stdin=stop_with_stdin,
    )
