"""Proxies that the environment names: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, and NO_PROXY for exceptions.

A program has no standard for them; these are the rules of curl, https://curl.se/docs/manpage.html#ENVIRONMENT. Only
the variable for the address at hand is read, so that another one cannot do harm.
"""

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.request import getproxies

import httpx

from kuber import extras
from kuber.domain.address import is_host, is_loopback
from kuber.errors import SettingsError

SCHEMES = ("http", "https", "socks5", "socks5h")
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """A proxy and the source of its address: a variable, or the settings of the operating system."""

    url: httpx.URL
    source: str

    def __str__(self) -> str:
        return f"{self.source} ({self.url.copy_with(userinfo=b'')})"


def proxy_for(address: httpx.URL) -> Proxy | None:
    """Return the proxy for requests to this address, None where they go straight to it.

    Addresses of this machine have none. Raises SettingsError, which names the variable, for a proxy that cannot be
    used.
    """
    found = {kind: text.strip() for kind, text in getproxies().items()}
    kind = next((kind for kind in (address.scheme, "all") if found.get(kind)), None)
    if kind is None or is_loopback(address.host) or _is_exception(address, found.get("no", "")):
        return None
    text, source = found[kind], _source(kind)
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL:
        url = httpx.URL()
    possible = url.scheme in SCHEMES and bool(_HOST.fullmatch(url.raw_host)) and is_host(url.raw_host.decode())
    if not possible or not 1 <= (url.port or 80) <= 65535:
        raise SettingsError(
            f"{source} names the proxy {_without_password(text)!r}, which cannot be used: correct it to an address "
            "like http://proxy.example:3128 or socks5://proxy.example:1080, or unset it."
        )
    if url.scheme.startswith("socks"):
        extras.require(f"The SOCKS proxy of {source[0].lower()}{source[1:]}", "socks")
    return Proxy(url=url, source=source)


def _source(kind: str) -> str:
    name = f"{kind}_proxy"
    spellings = [name, name.upper(), *os.environ]  # the lower-case spelling counts first
    set_here = [each for each in spellings if each.lower() == name and os.environ.get(each)]
    return f"The variable {set_here[0]}" if set_here else "The system's proxy setting"


def _without_password(text: str) -> str:
    return re.sub(r"^([^/]*//)?.*@", r"\1***@", text)[:200]


def _is_exception(address: httpx.URL, patterns: str) -> bool:
    """Return whether NO_PROXY names the address: as *, a name, a domain, an IP address or a network."""
    for pattern in re.split(r"[\s,;]+", patterns):
        scheme, _, rest = pattern.rpartition("://")
        host, port = _host_and_port(rest)
        if scheme not in ("", "all", address.scheme):
            continue
        if port and port != str(address.port or _PORTS.get(address.scheme)):
            continue
        if _matches(host, address.host):
            return True
    return False


def _host_and_port(pattern: str) -> tuple[str, str]:
    bracketed = re.fullmatch(r"\[([^]]*)\](?::(\d*))?", pattern)
    if bracketed is not None:
        return bracketed[1], bracketed[2] or ""
    host, colon, port = pattern.rpartition(":")
    return (host, port) if colon and ":" not in host else (pattern, "")  # several colons: an IPv6 address


def _matches(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    try:
        network = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        domain = pattern.lower().lstrip("*").strip(".")
        return bool(domain) and f".{host.lower().rstrip('.')}".endswith(f".{domain}")
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
