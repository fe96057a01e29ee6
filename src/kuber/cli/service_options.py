"""Options that the services have in common."""

from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on; 0: any free port.")]
Secret = Annotated[
    Path, typer.Option(metavar="FILE", help="File with the secret that registry and vault share; created if missing.")
]
Rate = Annotated[
    int, typer.Option(min=0, metavar="N", help="Requests accepted per minute from one address; 0: no limit.")
]
MaxConnections = Annotated[
    int, typer.Option(min=0, metavar="N", help="Connections accepted; 0: as many as open files are allowed.")
]
PerAddress = Annotated[
    int,
    typer.Option(
        "--max-connections-per-address",
        min=0,
        metavar="N",
        help="Connections accepted from one address other than this machine's; 0: no limit.",
    ),
]
Certificate = Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM); serves HTTPS.")]
PrivateKey = Annotated[Path | None, typer.Option(metavar="FILE", help="Private key of the certificate (PEM).")]
PlainHttp = Annotated[
    bool, typer.Option(show_default=False, help="Serve other machines over plain HTTP (unencrypted).")
]
StopWithStdin = Annotated[bool, typer.Option(show_default=False, help="Stop when standard input is closed.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="PostgreSQL database, instead of a file in the data folder."),
]
