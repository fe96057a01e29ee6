"""`kuber registry`: the metadata service."""

from pathlib import Path
from typing import Annotated

import typer


def registry(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 5001,
    vault: Annotated[str, typer.Option(help="Address of the vault.")] = "http://127.0.0.1:5002",
    data: Annotated[Path, typer.Option(help="Folder of the database.")] = Path("hub/registry"),
    stop_with_stdin: Annotated[bool, typer.Option(help="Stop when standard input ends.")] = False,
) -> None:
    """Serve the registry: who takes part, what was published, what became of it."""
    from kuber.services.registry_app import open_registry
    from kuber.services.serving import serve

    serve(
        "registry",
        lambda: open_registry(data.expanduser(), vault=vault),
        host=host,
        port=port,
        stop_with_stdin=stop_with_stdin,
    )
