"""Publishing over HTTP: requests of the registry to its vault, also to a vault of an earlier version."""

from contextlib import closing
from unittest.mock import ANY

import httpx
import pytest
from fastapi.testclient import TestClient

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft, TensorSpec
from kuber.errors import RequestRejectedError, ServiceError
from kuber.services.registry.store import RegistryStore
from kuber.services.registry.vault_client import RegistryVault
from kuber.services.vault.app import open_vault
from kuber.wire.registry import DraftBody, PublicationBody
from kuber.wire.sent_blobs import encode_blobs
from kuber.wire.vault import PinsBody

from ..records import ARCHITECTURE, TASK, TEST_SET, safetensors_file

SECRET = "s" * 40


class Transport(httpx.BaseTransport):
    """A vault in this process that records its requests; `pinned` replaces its answer to pins."""

    def __init__(self, app):
        self.client = TestClient(app, headers={"Authorization": f"Bearer {SECRET}"})
        self.requests = []
        self.pinned = None
        self.refuses = None  # bytes in a body

    def handle_request(self, request):
        self.requests.append(f"{request.method} {request.url.path}")
        if self.refuses is not None and self.refuses in request.read():
            problem = {"code": "request-rejected", "status": 422, "title": "Refused", "detail": "Refused."}
            return httpx.Response(422, json=problem, headers={"KUber-Protocol": "1"})
        url, headers = request.url.raw_path.decode(), dict(request.headers)
        response = self.client.request(request.method, url, content=request.read(), headers=headers)
        answer = {"status_code": response.status_code, "content": response.content}
        if self.pinned is not None and self.requests[-1] == "POST /v1/pins":
            answer = self.pinned
        return httpx.Response(**answer, headers={"KUber-Protocol": response.headers["KUber-Protocol"]})

    def pins(self):
        return self.client.get("/v1/pins").json()["items"]


@pytest.fixture
def vault(tmp_path, monkeypatch):
    with open_vault(tmp_path / "vault", registry="http://127.0.0.1:1", secret=SECRET) as app:
        transport = Transport(app)
        monkeypatch.setattr(httpx, "HTTPTransport", lambda **_: transport)
        yield transport


@pytest.fixture
def publish(vault, tmp_path):
    """Publish weights with these tensors, in a record that declares this architecture."""
    with (
        closing(RegistryVault("http://vault", SECRET)) as link,
        closing(RegistryStore(tmp_path / "registry.sqlite", vault=link)) as store,
    ):
        entity = store.register("entity").id

        def act(key, manifest=ARCHITECTURE.manifest, *, declared=ARCHITECTURE, sent=None):
            blob = safetensors_file(manifest)
            if sent is None:
                vault.client.put(f"/v1/blobs/{Digest.of(blob)}", content=blob).raise_for_status()
            draft = Draft(
                entity=entity,
                task=TASK,
                architecture=declared,
                artifacts={WEIGHTS: Artifact.of(blob)},
                evaluation=Evaluation(test_set=TEST_SET, correct=(3, 4), total=(10, 10)),
                round=1,
            )
            if sent is None:
                return store.publish(draft, key=key)
            body = DraftBody.of(draft).model_dump(mode="json") | {"blobs": sent(blob)}
            return store.accept(PublicationBody.model_validate(body), key=key)[0]

        yield act


def test_a_publication_is_one_request_to_the_vault(vault, publish):
    record = publish("new")
    again = publish("the same weights, whose check the vault remembers")
    assert vault.requests == ["POST /v1/pins"] * 2
    assert {pin["holder"] for pin in vault.pins()} == {record.id, again.id}


def test_weights_of_other_tensors_are_refused_and_unpinned(vault, publish):
    with pytest.raises(RequestRejectedError, match="other tensors"):
        publish("other", {"w": TensorSpec(dtype="F32", shape=(4, 2))})
    assert vault.requests == ["POST /v1/pins", "DELETE /v1/pins"]
    assert vault.pins() == []


@pytest.mark.parametrize("answer", [{"status_code": 204}, {"status_code": 200, "json": {"pinned": True}}])
def test_without_a_manifest_from_the_vault_the_header_is_read(vault, publish, answer):
    vault.pinned = answer
    record = publish("new")
    header = f"GET /v1/blobs/{record.artifacts[WEIGHTS].digest}"
    assert vault.requests == ["POST /v1/pins", header]
    with pytest.raises(RequestRejectedError, match="other tensors"):
        publish("other", {"w": TensorSpec(dtype="F32", shape=(4, 2))})
    assert vault.requests[-1] == "DELETE /v1/pins"
    assert [pin["holder"] for pin in vault.pins()] == [record.id]


def test_a_long_manifest_is_sent_whole(vault, publish):
    manifest = {f"layer-{n:05}-{'x' * 40}": TensorSpec(dtype="F32", shape=(1,)) for n in range(7000)}
    publish("long", manifest, declared=Architecture(name="long", arguments={}, manifest=manifest))
    assert vault.requests == ["POST /v1/pins"]


def test_the_owner_of_a_file_is_asked_for_when_another_has_published_it(vault, publish):
    digest = publish("new").artifacts[WEIGHTS].digest
    with closing(RegistryVault("http://vault", SECRET)) as link:
        stored = vault.client.get(f"/v1/blobs/{digest}/owner").json()
        assert stored["entity"] is None, "a service stored it"
        assert link.owner(digest).stored_at.isoformat() == stored["stored_at"].replace("Z", "+00:00")
        assert link.owner(Digest.of(b"missing")) is None
        routes = [route for route in vault.client.app.routes if not route.path.endswith("/owner")]
        vault.client.app.router.routes[:] = routes
        assert link.owner(digest) is None, "from a vault of an earlier version"


def test_an_answer_that_cannot_be_read_names_the_vault(vault, publish):
    vault.pinned = {"status_code": 200, "json": {"manifests": {"no digest": {}}}}
    with pytest.raises(ServiceError, match="The answer of the vault at http://vault cannot be read"):
        publish("new")


def artifact_in(vault, fill):
    blob = safetensors_file(ARCHITECTURE.manifest, fill=fill)
    vault.client.put(f"/v1/blobs/{Digest.of(blob)}", content=blob).raise_for_status()
    return Artifact.of(blob)


def test_a_batch_of_pins_is_one_request_with_a_result_for_each(vault):
    there, missing = artifact_in(vault, 1), Artifact(digest=Digest.of(b"missing"), size=7)
    bodies = [PinsBody.of("a", [(WEIGHTS, there)]), PinsBody.of("b", [(WEIGHTS, missing)]), PinsBody.of("c", [])]
    with closing(RegistryVault("http://vault", SECRET)) as link:
        first, second, third = link.pin_all(bodies)
    assert vault.requests == ["POST /v1/pins/batch"]
    assert first == {there.digest: dict(ARCHITECTURE.manifest)}
    assert isinstance(second, RequestRejectedError)
    assert "not in the vault" in second.message
    assert third == {}
    assert [pin["holder"] for pin in vault.pins()] == ["a"]


def test_a_vault_of_an_earlier_version_gets_single_requests(vault):
    there = artifact_in(vault, 1)
    vault.client.app.router.routes[:] = [route for route in vault.client.app.routes if route.path != "/v1/pins/batch"]
    bodies = [PinsBody.of(holder, [(WEIGHTS, there)]) for holder in "ab"]
    with closing(RegistryVault("http://vault", SECRET)) as link:
        for _ in range(2):
            assert link.pin_all(bodies) == [{there.digest: dict(ARCHITECTURE.manifest)}] * 2
    assert vault.requests == ["POST /v1/pins/batch", *["POST /v1/pins"] * 4]


def sent_with_record(blob):
    return encode_blobs([blob])


def test_a_blob_that_is_sent_with_its_record_is_stored_and_pinned_in_one_request(vault, publish):
    record = publish("together", sent=sent_with_record)
    artifact = record.artifacts[WEIGHTS]
    assert vault.requests == ["POST /v1/pins"]
    assert vault.pins() == [{"holder": record.id, "digest": str(artifact.digest), "pinned_at": ANY}]
    assert vault.client.get(f"/v1/blobs/{artifact.digest}").content == safetensors_file(ARCHITECTURE.manifest)
    assert publish("together", sent=sent_with_record) == publish("together") == record
    assert vault.requests == ["POST /v1/pins"]


def other_bytes(blob):
    return {str(Digest.of(blob)): encode_blobs([bytes(len(blob))]).popitem()[1]}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (other_bytes, "are not its own"),
        (lambda blob: {str(Digest.of(blob)): "=".rjust(4 * -(-len(blob) // 3), "A")}, "are not its own"),
        (lambda blob: encode_blobs([blob + b"x"]), "none of its artifacts"),
        (lambda blob: {str(Digest.of(blob)): "AAAA"}, "none of its artifacts"),
    ],
)
def test_other_bytes_than_the_records_are_refused_and_not_stored(vault, publish, sent, message):
    with pytest.raises(RequestRejectedError, match=message):
        publish("other", sent=sent)
    assert vault.pins() == vault.client.get("/v1/blobs").json()["items"] == []


def test_sent_weights_of_other_tensors_are_refused_and_unpinned(vault, publish):
    with pytest.raises(RequestRejectedError, match="other tensors"):
        publish("other", {"w": TensorSpec(dtype="F32", shape=(4, 2))}, sent=sent_with_record)
    assert vault.requests == ["POST /v1/pins", "DELETE /v1/pins"]
    assert vault.pins() == []


def test_an_earlier_vault_gets_no_blobs_once_it_has_refused_some(vault):
    there, blob = artifact_in(vault, 1), safetensors_file(ARCHITECTURE.manifest, fill=2)
    vault.refuses = b'"blobs"'
    sent = {"owner": "entity", "blobs": {Digest.of(blob): encode_blobs([blob]).popitem()[1]}}
    bodies = [PinsBody.of("a", [(WEIGHTS, Artifact.of(blob))], **sent), PinsBody.of("b", [(WEIGHTS, there)])]
    with closing(RegistryVault("http://vault", SECRET)) as link:
        refused, pinned = link.pin_all(bodies)
        assert isinstance(refused, RequestRejectedError)
        assert pinned == {there.digest: dict(ARCHITECTURE.manifest)}
        with pytest.raises(RequestRejectedError, match="put them there before the record"):
            link.store_and_pin("c", [(WEIGHTS, Artifact.of(blob))], **sent)
        assert link.pin_all(bodies[1:] * 2) == [pinned] * 2
    assert vault.requests == ["POST /v1/pins/batch", *["POST /v1/pins"] * 2, "POST /v1/pins/batch"]
