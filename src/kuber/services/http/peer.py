"""HTTP transport between the two services of a hub: one retry when connecting fails, and no proxy."""

import ssl
from pathlib import Path

import httpx

from kuber.errors import SettingsError


def peer_transport(ca: Path | None) -> httpx.HTTPTransport:
    """Return a transport that trusts the certificates in `ca`, or the system's.

    Raises SettingsError when the file has no usable certificates.
    """
    if ca is None:
        return httpx.HTTPTransport(retries=1)
    try:
        return httpx.HTTPTransport(retries=1, verify=ssl.create_default_context(cafile=str(ca)))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"The certificates in {ca} cannot be used: {error}.") from None
