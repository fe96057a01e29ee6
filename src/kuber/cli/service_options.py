"""Options that the services have in common."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from kuber.errors import SettingsError

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
KeepEvents = Annotated[
    str | None,
    typer.Option(
        "--keep-events",
        metavar="AGE",
        help="Age at which events, deliveries and withdrawn records are removed, such as 90d; never if not set.",
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

_AGE = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_age(option: str, text: str | None) -> timedelta | None:
    """Return an age such as 90d; None for None. Raises SettingsError for another form."""
    if text is None:
        return None
    match = _AGE.fullmatch(text.strip())
    number = int(match[1]) if match else 0
    if match is None or not number or number > 1_000_000:
        raise SettingsError(f"{option} cannot be {text[:40]!r}; give a number and a unit, such as 90d, 12h or 30m.")
    return timedelta(**{_UNITS[match[2]]: number})
