"""The options that registry and vault have in common."""

from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")]
Secret = Annotated[Path, typer.Option(help="File of the secret that registry and vault share; made when missing.")]
Rate = Annotated[int, typer.Option(min=0, help="Requests taken from one address in a minute; 0: any number.")]
Certificate = Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM), to serve HTTPS.")]
PrivateKey = Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")]
PlainHttp = Annotated[bool, typer.Option(help="Serve other machines without TLS: all can read along.")]
StopWithStdin = Annotated[bool, typer.Option(help="Stop when standard input ends.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="PostgreSQL database, in place of a file in the folder."),
]
