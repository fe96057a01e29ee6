"""Direct transfers to and from a vault's bucket, by signed URLs and without a token."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from kuber.client.download import Download
from kuber.domain.blob import DirectUrl
from kuber.errors import SettingsError
from kuber.transport.clients import http_client
from kuber.transport.proxies import proxy_for

CONNECT_SECONDS = 5
TIMEOUT_SECONDS = 60  # without a byte sent or received
BACKOFF_SECONDS = 300  # for which an unreachable bucket is not tried again

Origin = tuple[str, str, int | None]  # scheme, host and port of a bucket

log = logging.getLogger("kuber")


class PresignedTransfer:
    """Client of signed URLs. Safe to use from several threads.

    A failed transfer is no error: the vault transfers the bytes instead. An unreachable bucket is not tried again for
    a while.
    """

    def __init__(self, *, secure: bool, ca: Path | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """With `secure` only https URLs are used: bytes that came by TLS should not continue without it."""
        self._secure = secure
        self._ca = ca
        self._monotonic = monotonic
        self._retry_at = 0.0
        self._lock = threading.Lock()
        self._clients: dict[Origin, httpx.Client] = {}
        self._refusals: set[str] = set()  # reasons why a bucket is not used, each of which is said once

    @property
    def available(self) -> bool:
        """Whether it is worth requesting a signed URL."""
        return self._monotonic() >= self._retry_at

    def put(self, target: DirectUrl, data: bytes) -> bool:
        """Send the bytes of a blob. Return whether the bucket accepted them."""
        client = self._client_for(target.url)
        if client is None:
            return False
        try:
            response = client.put(target.url, content=data, headers={"Content-Type": "application/octet-stream"})
        except (httpx.RequestError, httpx.InvalidURL):
            self._back_off()
            return False
        return response.is_success

    def get(self, url: str, download: Download) -> bool:
        """Receive the rest of a download. Return whether it is complete; `download` keeps what was received."""
        client = self._client_for(url)
        if client is None:
            return False
        before = download.furthest
        headers = dict(download.headers())
        headers.pop("If-Range", None)  # the ETags of the bucket differ; the digest is checked in the end
        try:
            with client.stream("GET", url, headers=headers) as response:
                if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    return False
                download.receive(response)
                return True
        except (httpx.RequestError, httpx.InvalidURL):
            if download.furthest == before:
                self._back_off()
            return False

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _back_off(self) -> None:
        self._retry_at = self._monotonic() + BACKOFF_SECONDS

    def _client_for(self, url: str) -> httpx.Client | None:
        """Return the client for this URL; None when the URL must not be used."""
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL:
            return None
        if address.scheme != "https" and (self._secure or address.scheme != "http"):
            return None
        origin = address.scheme, address.host, address.port
        with self._lock:
            if origin not in self._clients:
                try:
                    self._clients[origin] = self._client(address)
                except SettingsError as error:
                    self._back_off()
                    self._warn(error.message)
                    return None
            return self._clients[origin]

    def _client(self, address: httpx.URL) -> httpx.Client:
        """Create a client that trusts the usual authorities and `ca`: the bucket may have another operator."""
        timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
        return http_client(address, proxy=proxy_for(address), ca=self._ca, also_usual=True, timeout=timeout)

    def _warn(self, reason: str) -> None:
        if reason not in self._refusals:
            self._refusals.add(reason)
            log.warning("%s Until then models pass through the vault, not directly to its bucket.", reason)
