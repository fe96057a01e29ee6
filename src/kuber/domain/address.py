"""Addresses of services."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether only processes on this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(host: str, port: int, *, scheme: str = "http") -> str:
    """Return the URL of a service."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
