"""HTTP client of one service of a hub for the other: one retry when connecting fails, and no proxy."""

from pathlib import Path
from typing import Literal

import httpx

from kuber.errors import SettingsError
from kuber.transport.clients import http_client
from kuber.wire import PROTOCOL, PROTOCOL_HEADER


def peer_client(
    url: str, service: Literal["registry", "vault"], secret: str, *, ca: Path | None, timeout: httpx.Timeout
) -> httpx.Client:
    """Return a client of the service at `url` that sends the secret of the hub.

    It trusts the certificates in `ca`, or the system's. Raises SettingsError when these or the URL are invalid.
    """
    try:
        address = httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        port = 5001 if service == "registry" else 5002
        raise SettingsError(f"{url!r} is not the address of a {service}; give one like http://127.0.0.1:{port}.")
    headers = {PROTOCOL_HEADER: str(PROTOCOL), "Authorization": f"Bearer {secret}"}
    return http_client(address, ca=ca, retries=1, base_url=address, headers=headers, timeout=timeout)
