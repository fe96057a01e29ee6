"""HTTP clients: each for one address, with the proxy and the certificates that it needs."""

from pathlib import Path
from typing import Any

import httpx

from kuber.transport.certificates import no_authorities, trusted
from kuber.transport.proxies import Proxy


def http_client(
    address: httpx.URL,
    *,
    proxy: Proxy | None = None,
    ca: Path | None = None,
    also_usual: bool = False,
    retries: int = 0,
    **options: Any,
) -> httpx.Client:
    """Create a client for requests to this address, through the proxy that `proxy_for` chose, if any.

    It trusts the certificates in `ca`, the usual ones without it, and both with `also_usual`. For plain http none are
    read, so that a redirection from there to https is not trusted. `retries` are those of connecting; the other
    options are those of httpx.Client. Raises SettingsError when certificates cannot be used.
    """
    secure = address.scheme == "https"
    transport = httpx.HTTPTransport(
        verify=trusted(ca, also_usual=also_usual) if secure else no_authorities(),
        retries=retries,
        proxy=_with_certificates(proxy.url) if proxy else None,
    )
    # The transport has what the environment says; httpx would read its proxies again, in its own way.
    return httpx.Client(transport=transport, trust_env=False, **options)


def _with_certificates(proxy: httpx.URL) -> httpx.Proxy:
    return httpx.Proxy(proxy, ssl_context=trusted(None) if proxy.scheme == "https" else None)
