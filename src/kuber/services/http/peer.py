"""How the two services of a hub reach each other: once more when a connection fails, and through no proxy."""

import ssl
from pathlib import Path

import httpx

from kuber.errors import SettingsError


def neighbour(ca: Path | None) -> httpx.HTTPTransport:
    """A transport that trusts the certificates in this file, or the system's. SettingsError when it holds none."""
    if ca is None:
        return httpx.HTTPTransport(retries=1)
    try:
        return httpx.HTTPTransport(retries=1, verify=ssl.create_default_context(cafile=str(ca)))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"The certificates in {ca} cannot be used: {error}.") from None
