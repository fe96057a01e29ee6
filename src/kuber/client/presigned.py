"""The way to a vault's bucket beside the vault: by signed URLs, and without a token."""

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from kuber.client.download import Download
from kuber.domain.address import is_loopback
from kuber.domain.blob import DirectUrl

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60  # without a byte sent or received
AWAY_SECONDS = 300  # that a bucket which could not be reached is left alone


class PresignedTransfer:
    """Sends bytes to signed URLs and reads them there. Safe to use from several threads; closed by `close`.

    What fails is no error: the vault is the other way. When a bucket cannot be reached it is not tried for a while.
    """

    def __init__(self, *, secure: bool, ca: Path | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """With `secure` only URLs of https are used: what came by TLS should not go without."""
        self._secure = secure
        self._ca = ca
        self._monotonic = monotonic
        self._away_until = 0.0
        self._gate = threading.Lock()
        self._clients: dict[bool, httpx.Client] = {}  # by whether proxies of the environment are used

    @property
    def open(self) -> bool:
        """Whether it is worth asking for a signed URL."""
        return self._monotonic() >= self._away_until

    def put(self, to: DirectUrl, data: bytes) -> bool:
        """Whether the bucket took these bytes."""
        client = self._client(to.url)
        if client is None:
            return False
        try:
            answer = client.put(to.url, content=data, headers={"Content-Type": "application/octet-stream"})
        except (httpx.RequestError, httpx.InvalidURL):
            self._leave_alone()
            return False
        return answer.is_success

    def get(self, url: str, download: Download) -> bool:
        """Whether the rest of the blob came; what came before a cut stays in `download`."""
        client = self._client(url)
        if client is None:
            return False
        before = download.furthest
        headers = dict(download.headers())
        headers.pop("If-Range", None)  # the bucket has tags of its own; the digest tells in the end
        try:
            with client.stream("GET", url, headers=headers) as response:
                if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    return False
                download.take(response)
                return True
        except (httpx.RequestError, httpx.InvalidURL):
            if download.furthest == before:
                self._leave_alone()
            return False

    def close(self) -> None:
        """Let go of the connections."""
        with self._gate:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _leave_alone(self) -> None:
        self._away_until = self._monotonic() + AWAY_SECONDS

    def _client(self, url: str) -> httpx.Client | None:
        """What to ask this URL with; None where it is not to be asked."""
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL:
            return None
        if address.scheme != "https" and (self._secure or address.scheme != "http"):
            return None
        near = is_loopback(address.host)
        with self._gate:
            if near not in self._clients:
                self._clients[near] = httpx.Client(
                    timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                    verify=self._trusted(),
                    trust_env=not near,
                )
            return self._clients[near]

    def _trusted(self) -> ssl.SSLContext:
        """The usual authorities and those given: the vault may be one's own, and the bucket somebody else's."""
        context = httpx.create_ssl_context()
        if self._ca is not None:
            context.load_verify_locations(self._ca)
        return context
