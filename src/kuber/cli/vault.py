"""`kuber vault`: the blob service."""

from pathlib import Path
from typing import Annotated

import typer


def vault(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 5002,
    data: Annotated[Path, typer.Option(help="Folder of the blobs and their index.")] = Path("hub/vault"),
    max_blob_bytes: Annotated[int, typer.Option(min=1, help="Largest blob that is taken.")] = 2 << 30,
    stop_with_stdin: Annotated[bool, typer.Option(help="Stop when standard input ends.")] = False,
) -> None:
    """Serve the vault: blobs by digest."""
    from kuber.services.serving import serve
    from kuber.services.vault_app import open_vault

    serve(
        "vault",
        lambda: open_vault(data.expanduser(), max_blob_bytes=max_blob_bytes),
        host=host,
        port=port,
        stop_with_stdin=stop_with_stdin,
    )
