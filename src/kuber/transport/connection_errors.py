"""Reasons why a connection failed, as one sentence each: certificate, name, refused, silence, proxy."""

import math
import socket
import ssl
from collections.abc import Iterator

import httpx

from kuber.errors import ServiceUnavailableError
from kuber.transport.proxies import Proxy

_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_EXPIRED = "certificate has expired"
_OTHER_NAME = ("Hostname mismatch", "IP address mismatch")


def connection_error(
    error: httpx.TransportError, service: str, address: httpx.URL, *, command: str, proxy: Proxy | None = None
) -> ServiceUnavailableError:
    """Return the error for a request to the service at `address` that got no response, or lost it on the way.

    `service` is what the service is called, and `command` starts it. A certificate that is not trusted counts as
    unavailable too, because it may be renewed while others wait, but a retry is in vain.
    """
    url = str(address).rstrip("/")
    causes = list(_causes(error))
    untrusted = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if untrusted is not None:
        return ServiceUnavailableError(_certificate_sentence(untrusted, service, url), retry_after=math.inf)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        reason = next(cause.reason for cause in causes if isinstance(cause, ssl.SSLError))
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"):
            message = f"The {service} at {url} does not use TLS: give its address with http://."
            return ServiceUnavailableError(message, retry_after=math.inf)
    if isinstance(error, httpx.ProxyError):
        return _proxy_error(error, service, url, proxy)
    through = f"the proxy of {_lower(str(proxy))}" if proxy else ""
    unresolved = next((cause for cause in causes if isinstance(cause, socket.gaierror)), None)
    if unresolved is not None:
        host = proxy.url.host if proxy else address.host
        end = f"correct or unset {through}" if proxy else f"correct the address of the {service}, {url}"
        if unresolved.errno in _NO_SUCH_NAME:
            return ServiceUnavailableError(f"There is no host {host}: {end}.")
        return ServiceUnavailableError(
            f"The name {host} cannot be resolved now: check the network of this machine, or {end}."
        )
    if isinstance(error, httpx.TimeoutException):
        silent = f"The {service} at {url} did not answer within {_waited(error)}: check its address and its load"
        return ServiceUnavailableError(f"{silent}, and {through}." if proxy else f"{silent}.")
    if isinstance(error, httpx.ConnectError):
        if proxy:
            return ServiceUnavailableError(
                f"No connection to {through}, which leads to the {service} at {url}: is it running?"
            )
        refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        other = next((cause for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
        if not refused and other is not None:
            return ServiceUnavailableError(
                f"No connection to the {service} at {url} ({str(other.strerror).lower()}): check the network."
            )
        return ServiceUnavailableError(
            f"No answer from the {service} at {url}: is it running? Start it with `{command}`."
        )
    secure = "" if address.scheme == "https" else ", or does it use https://"
    return ServiceUnavailableError(f"The {service} at {url} closed the connection: is it still running{secure}?")


def _certificate_sentence(error: ssl.SSLCertVerificationError, service: str, url: str) -> str:
    reason = error.verify_message.rstrip(".")
    advice = "give its authority with --ca, in Python with ca="
    if reason == _EXPIRED or "not yet valid" in reason:
        advice = "have it renewed, or correct the clock of this machine"
    elif reason.startswith(_OTHER_NAME):
        advice = "give the address with the name that the certificate is for"
    return f"The certificate of the {service} at {url} is not trusted: {reason}; {advice}."


def _proxy_error(error: httpx.ProxyError, service: str, url: str, proxy: Proxy | None) -> ServiceUnavailableError:
    named = f"The proxy of {_lower(str(proxy))}" if proxy else "The proxy"
    if str(error).startswith("407") or "uthenticat" in str(error) or "sername/password" in str(error):
        return ServiceUnavailableError(
            f"{named} asks for a login: give it as http://NAME:PASSWORD@HOST:PORT.", retry_after=math.inf
        )
    return ServiceUnavailableError(f"{named} does not connect to the {service} at {url} ({error}).")


def _waited(error: httpx.TimeoutException) -> str:
    kind = "connect" if isinstance(error, httpx.ConnectTimeout) else "read"
    try:
        seconds = error.request.extensions["timeout"][kind]
    except (RuntimeError, KeyError):  # the request is not known
        return "the time limit"
    return f"{seconds:g} s"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _lower(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"
