"""The registry's HTTP client of its vault: pins and the first bytes of blobs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.errors import ServiceError
from kuber.services.http.peer import peer_client
from kuber.transport.connection_errors import connection_error
from kuber.transport.intermediaries import intermediary_error
from kuber.wire import PROTOCOL, PROTOCOL_HEADER
from kuber.wire.base import sentence
from kuber.wire.problem import ProblemBody, error_from
from kuber.wire.vault import PinnedBody, PinsBody

CONNECT_SECONDS = 3
ANSWER_SECONDS = 30  # before it pins blobs, the vault may have to read them
UNPIN_SECONDS = 5
MAX_ANSWER = 1 << 20  # bytes; a manifest is shorter than the header that lists it, of at most HEADER_LIMIT


class RegistryVault:
    """The vault service at `url`, as a BlobSource. Raises ServiceUnavailableError when it does not answer."""

    def __init__(self, url: str, secret: str, *, ca: Path | None = None) -> None:
        self.url = url.rstrip("/")
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._client = peer_client(url, "vault", secret, ca=ca, timeout=timeout)

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> Mapping[Digest, Manifest]:
        """Have the vault keep these (kind, artifact) pairs for `holder`; all or none.

        Return the manifests of weights; none from a vault of a version that does not send them.
        """
        body = PinsBody.of(holder, artifacts)
        headers = {"Content-Type": "application/json"}
        data = self._request("POST", "/v1/pins", content=body.model_dump_json(), headers=headers)
        try:
            return PinnedBody.read(data).value() if data else {}
        except ValidationError as error:
            raise ServiceError(
                f"The answer of the vault at {self.url} cannot be read; upgrade it. {sentence(error)}"
            ) from None

    def unpin(self, holder: str) -> None:
        """Have the vault remove every pin of `holder`."""
        self._request("DELETE", "/v1/pins", params={"holder": holder}, timeout=UNPIN_SECONDS)

    def head(self, digest: Digest, length: int) -> bytes:
        """Return the first `length` bytes of a blob, or all of a shorter one."""
        data = self._request("GET", f"/v1/blobs/{digest}", headers={"Range": f"bytes=0-{length - 1}"}, limit=length)
        return data[:length]

    def close(self) -> None:
        self._client.close()

    def _request(self, method: str, path: str, *, limit: int = MAX_ANSWER, **options: Any) -> bytes:
        """Send a request; return the body of the response, of which about `limit` bytes are read at most."""
        data = b""
        try:
            with self._client.stream(method, path, **options) as response:
                if PROTOCOL_HEADER not in response.headers:
                    raise intermediary_error(response, "vault", self.url)
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) >= limit:
                        break
        except httpx.TransportError as error:
            raise connection_error(error, "registry's vault", self._client.base_url, command="kuber vault") from None
        if response.headers[PROTOCOL_HEADER] != str(PROTOCOL):
            raise ServiceError(f"The service at {self.url} is not a vault of this protocol version; check --vault.")
        if response.is_error:
            try:
                raise error_from(ProblemBody.model_validate_json(data, extra="ignore"))
            except ValidationError:
                raise ServiceError(f"The vault at {self.url} failed with status {response.status_code}.") from None
        return data
