"""Addresses of services."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether only processes on this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_host(host: str) -> bool:
    """Return whether a name or an address has a form that can be looked up: no part of it is empty or too long."""
    parts = host.removesuffix(".").split(".")
    return len(host) <= 253 and (":" in host or all(0 < len(part) <= 63 for part in parts))


def url_of(host: str, port: int, *, scheme: str = "http") -> str:
    """Return the URL of a service."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def network_of(address: str) -> str:
    """Return the network that one caller can send from: the /64 of an IPv6 address, any other address itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
    return address
