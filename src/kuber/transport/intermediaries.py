"""Answers that come from an intermediary (RFC 9110, 3.7), such as a proxy or gateway, and not from the service."""

import math
import time
from email.utils import parsedate_to_datetime

import httpx

from kuber.domain.whole_numbers import read_digits
from kuber.errors import KUberError, RequestRejectedError, ServiceError, ServiceUnavailableError

# The service behind a gateway restarts, is overloaded or unreachable: 520 to 530 are those of a CDN.
UNAVAILABLE = {408, 425, 429, 502, 503, 504, 598, 599, *range(520, 531)}
TOO_LARGE = 413
_HTTP_TO_HTTPS = b"HTTP request was sent to HTTPS port"  # nginx says so with status 400
_MOST_WAITED = 2.0  # seconds, except for a limit on requests: a service is often back before it was announced
_MOST_SHOWN = 200  # characters of an address that an answer names


def intermediary_error(response: httpx.Response, service: str, url: str) -> KUberError:
    """Return the error for a response without the protocol header of a service. The body may be unread.

    An intermediary that is in the way for now, or asks for a login, makes the service unavailable.
    """
    status = response.status_code
    if status in UNAVAILABLE or status == httpx.codes.INTERNAL_SERVER_ERROR:  # ours have the header
        return ServiceUnavailableError(
            f"The {service} at {url} is not available now: an intermediary, such as a proxy, answers for it with "
            f"status {status}; try again.",
            retry_after=retry_after(response),
        )
    if status == TOO_LARGE:
        return too_large(response, service)
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return ServiceUnavailableError(
            f"The proxy between us and the {service} at {url} asks for a login (status 407): give it in the variable "
            "that names the proxy, as http://NAME:PASSWORD@HOST:PORT.",
            retry_after=math.inf,
        )
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.NETWORK_AUTHENTICATION_REQUIRED):
        return ServiceUnavailableError(
            f"Something between us and the {service} at {url} asks for a login (status {status}): log in there, or "
            "have it let requests to this address pass.",
            retry_after=math.inf,
        )
    if status == httpx.codes.FORBIDDEN:
        return ServiceUnavailableError(
            f"Something between us and the {service} at {url} forbids the request (status 403): have it let requests "
            "to this address pass.",
            retry_after=math.inf,
        )
    if response.has_redirect_location:
        return _redirected(response, service, url)
    if status == httpx.codes.BAD_REQUEST and _HTTP_TO_HTTPS in next(response.iter_bytes(4096), b""):
        return ServiceUnavailableError(
            f"The {service} at {url} uses TLS: give its address with https://.", retry_after=math.inf
        )
    return ServiceError(f"The server at {url} is not a KUber {service}; check the address.")


def too_large(response: httpx.Response, service: str) -> RequestRejectedError:
    """Return the error for a request with a body that an intermediary does not take."""
    length = read_digits(response.request.headers.get("Content-Length", ""))
    size = "this size" if length is None else _size(length)
    return RequestRejectedError(
        f"Something between us and the {service} takes no body of {size} (status 413); raise its limit, such as "
        "client_max_body_size of nginx.",
        too_large=True,
    )


def retry_after(response: httpx.Response) -> float:
    """Return the seconds that a response asks to wait before the next request; 0 if it does not."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        decimal = text.isascii() and text.isdecimal()
        seconds = float(text) if decimal else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    limited = response.status_code == httpx.codes.TOO_MANY_REQUESTS
    return max(0.0, seconds if limited else min(seconds, _MOST_WAITED))


def _redirected(response: httpx.Response, service: str, url: str) -> ServiceUnavailableError:
    status = response.status_code
    try:
        target = str(response.request.url.join(response.headers["Location"]))
    except httpx.InvalidURL:
        target = response.headers["Location"]
    asked = str(response.request.url)
    path = asked.removeprefix(url)
    moved = target.removesuffix(path)
    if path != asked and moved not in (url, target):
        advice = f"has moved to {moved[:_MOST_SHOWN]!r} (status {status}): give that address."
        return ServiceUnavailableError(f"The {service} at {url} {advice}", retry_after=math.inf)
    return ServiceUnavailableError(
        f"Requests to the {service} at {url} are redirected to {target[:_MOST_SHOWN]!r} (status {status}), as to the "
        "page of a login: log in there, or give the address of the service itself.",
        retry_after=math.inf,
    )


def _size(length: int) -> str:
    if length < 1000:
        return f"{length} bytes"
    return f"{length / 1e6:.1f} MB" if length >= 100_000 else f"{length / 1e3:.1f} kB"
