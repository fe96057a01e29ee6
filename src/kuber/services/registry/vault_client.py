"""The registry's HTTP client of its vault: pins and the first bytes of blobs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from kuber.domain.blob import Owner
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.errors import KnowledgeNotFoundError, KUberError, RequestRejectedError, ServiceError
from kuber.services.http.peer import peer_client
from kuber.services.registry.pin_batches import PinBatches, Pinned
from kuber.transport.connection_errors import connection_error
from kuber.transport.intermediaries import intermediary_error
from kuber.wire import PROTOCOL, PROTOCOL_HEADER
from kuber.wire.base import Message, sentence
from kuber.wire.problem import ProblemBody, error_from
from kuber.wire.vault import MAX_BATCH, OwnerBody, PinBatchBody, PinnedBody, PinResultsBody, PinsBody

CONNECT_SECONDS = 3
ANSWER_SECONDS = 30  # before it pins blobs, the vault may have to read them
UNPIN_SECONDS = 5
MAX_ANSWER = 1 << 20  # bytes; a manifest is shorter than the header that lists it, of at most HEADER_LIMIT
MAX_BATCHED = 1 << 20  # bytes of the blobs of one publication in a batch: larger ones would make the others wait
MAX_BATCH_ANSWER = MAX_BATCH * MAX_ANSWER

M = TypeVar("M", bound=Message)

_JSON = {"Content-Type": "application/json"}


class RegistryVault:
    """The vault service at `url`, as a BlobSource. Raises ServiceUnavailableError when it does not answer."""

    def __init__(self, url: str, secret: str, *, ca: Path | None = None) -> None:
        self.url = url.rstrip("/")
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._client = peer_client(url, "vault", secret, ca=ca, timeout=timeout)
        self._batches = PinBatches(self.pin_all)
        self._takes_batches = self._takes_blobs = True  # until the vault is found to be of an earlier version

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> Mapping[Digest, Manifest]:
        """Have the vault keep these (kind, artifact) pairs for `holder`; all or none.

        Return the manifests of weights; none from a vault of a version that does not send them.
        """
        return self._pin_with_others(PinsBody.of(holder, artifacts))

    def store_and_pin(
        self, holder: str, artifacts: Iterable[tuple[str, Artifact]], *, owner: str, blobs: Mapping[Digest, str]
    ) -> Mapping[Digest, Manifest]:
        """Have the vault store small blobs, base64 by digest, for their owner, and pin. All or none.

        Raises RequestRejectedError when the vault is of an earlier version.
        """
        if not self._takes_blobs:
            raise RequestRejectedError("The vault takes no blobs from a registry; put them there before the record.")
        return self._pin_with_others(PinsBody.of(holder, artifacts, owner=owner, blobs=blobs))

    def _pin_with_others(self, body: PinsBody) -> Mapping[Digest, Manifest]:
        if self._takes_batches and sum(artifact.size for artifact in body.artifacts) <= MAX_BATCHED:
            return self._batches.pin(body)
        return self._pin(body)

    def _pin(self, body: PinsBody) -> Mapping[Digest, Manifest]:
        data = self._request("POST", "/v1/pins", content=_json(body), headers=_JSON)
        return self._read(PinnedBody, data).value() if data else {}

    def pin_all(self, bodies: Sequence[PinsBody]) -> Sequence[Pinned]:
        """Pin for several holders; return the result of each."""
        if len(bodies) > 1 and self._takes_batches:
            batch = _json(PinBatchBody(holders=tuple(bodies)))
            try:
                data = self._request("POST", "/v1/pins/batch", content=batch, headers=_JSON, limit=MAX_BATCH_ANSWER)
            except RequestRejectedError:
                if any(body.blobs for body in bodies):
                    self._takes_blobs = False
                else:
                    self._takes_batches = False
            else:
                found = self._read(PinResultsBody, data).results
                return [
                    error_from(each.problem) if each.problem else (each.pinned.value() if each.pinned else {})
                    for each in found
                ]
        results: list[Pinned] = []
        for body in bodies:
            try:
                results.append(self._pin(body))
            except KUberError as error:
                results.append(error)
        return results

    def _read(self, body: type[M], data: bytes) -> M:
        try:
            return body.read(data)
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

    def owner(self, digest: Digest) -> Owner | None:
        """Return the owner of a blob; None when it is not stored, or the vault is of an earlier version."""
        try:
            return self._read(OwnerBody, self._request("GET", f"/v1/blobs/{digest}/owner")).value()
        except (KnowledgeNotFoundError, RequestRejectedError):
            return None

    def close(self) -> None:
        self._batches.close()
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


def _json(body: Message) -> str:
    """Return a message without the fields that an earlier version does not know, where they say nothing."""
    return body.model_dump_json(exclude_defaults=True)
