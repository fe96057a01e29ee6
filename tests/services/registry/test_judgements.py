"""Verifications and quarantines over HTTP; the operator's quarantine overrides the verifier."""

from contextlib import closing
from itertools import count

import httpx
import pytest

from kuber.client.admin import AdminClient
from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import WEIGHTS
from kuber.domain.query import Query
from kuber.domain.verification import Standing, Verification
from kuber.errors import ConflictError, KnowledgeNotFoundError, NotAuthorizedError, RequestRejectedError
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.store import VaultStore
from kuber.wire.registry import AuditBody
from tests.fixtures.hub import SigningRegistry
from tests.fixtures.waiting import LIMIT

REASON = "It may carry a backdoor."
ORDERS = ({}, {"order": "newest"}, {"order": "classes", "classes": (0,)})


@pytest.fixture
def registry(hub):
    with SigningRegistry(hub.registry) as client:
        yield client


@pytest.fixture
def operator(hub):
    with AdminClient(hub.registry, hub.operator) as client:
        yield client


@pytest.fixture
def verifier(hub):
    with HttpRegistry(hub.registry, credentials=Credentials(token=hub.verifier)) as client:
        yield client


@pytest.fixture
def publish(hub, registry, samples):
    entity, keys = registry.register(samples.name()).id, count()

    def act(*correct):
        with HttpVault(hub.vault, credentials=Credentials(token=hub.secret)) as vault:
            stored = vault.put(samples.weights())
        draft = samples.draft(entity, stored, evaluation=samples.evaluation(*correct))
        return registry.publish(draft, key=f"{next(keys)}")

    return act


@pytest.fixture
def discovered(registry, samples):
    return lambda **filters: [
        record.id for record in registry.discover(Query(task=samples.task.name, **filters)).items
    ]


@pytest.fixture
def events(hub, registry):
    """Return the public events of a record, as an entity receives them."""

    def of(record):
        headers = {"Authorization": f"Bearer {registry.credentials.token()}"}
        with httpx.Client(base_url=hub.registry, headers=headers, trust_env=False) as client:
            text = client.get("/v1/events", params={"follow": False}, timeout=LIMIT).text
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        entries = [AuditBody.read(line).value() for line in lines]
        return [(entry.actor, entry.act, dict(entry.detail)) for entry in entries if entry.subject == record.id]

    return of


def refused(evaluation=None):
    return Verification(standing=Standing.QUARANTINED, reason=REASON, evaluation=evaluation)


def found(evaluation):
    return Verification(standing=Standing.VERIFIED, reason="Found.", evaluation=evaluation)


def test_records_quarantined_by_the_operator_are_not_discovered(operator, registry, publish, discovered):
    sound, bad = publish(50, 50), publish(90, 90)
    assert registry.knowledge(bad.id) == bad  # read before, so that what is remembered is not what is answered
    operator.quarantine(bad.id, REASON)
    for order in ORDERS:
        assert discovered(**order) == discovered(latest=True, **order) == [sound.id]
    assert discovered(standing=Standing.QUARANTINED) == [bad.id]
    assert registry.knowledge(bad.id).verification == refused()
    operator.release(bad.id)
    assert registry.knowledge(bad.id) == bad
    for order in ORDERS:
        assert set(discovered(**order)) == {sound.id, bad.id}
        assert discovered(latest=True, **order) == [bad.id]
    assert discovered(standing=Standing.QUARANTINED) == []


def test_the_verifier_cannot_lift_the_operators_quarantine(
    operator, verifier, registry, publish, discovered, samples
):
    record = publish(50, 50)
    operator.quarantine(record.id, REASON)
    assert discovered(pending=True) == []
    for finding in (found(samples.evaluation(50, 50)), refused(samples.evaluation(1, 1))):
        with pytest.raises(ConflictError, match="The operator has quarantined this record"):
            verifier.verify(record.id, finding)
    assert registry.knowledge(record.id).verification == refused()
    operator.release(record.id)
    assert discovered(pending=True) == [record.id]
    verifier.verify(record.id, found(samples.evaluation(50, 50)))
    assert registry.knowledge(record.id).verification == found(samples.evaluation(50, 50))


def test_the_earlier_verification_holds_again_after_release(
    operator, verifier, registry, publish, discovered, samples
):
    boaster, honest = publish(90, 30), publish(50, 50)
    finding = found(samples.evaluation(20, 28))
    verifier.verify(boaster.id, finding)
    operator.quarantine(boaster.id, REASON)
    assert registry.knowledge(boaster.id).verification == refused(samples.evaluation(20, 28))
    operator.release(boaster.id)
    assert registry.knowledge(boaster.id).verification == finding
    assert discovered(pending=True) == [honest.id]
    assert discovered() == discovered(order="classes", classes=(0,)) == [honest.id, boaster.id]  # ranked by it


def test_an_unverifiable_record_is_unverifiable_again(operator, verifier, registry, publish):
    record = publish(50, 50)
    finding = Verification(standing=Standing.UNVERIFIABLE, reason="No such network here.")
    verifier.verify(record.id, finding)
    operator.quarantine(record.id, REASON)
    assert registry.knowledge(record.id).verification == refused()
    operator.release(record.id)
    assert registry.knowledge(record.id).verification == finding


@pytest.mark.parametrize("too", [False, True], ids=["by the verifier", "by the operator too"])
def test_a_record_quarantined_by_the_verifier_is_pending_once_released(
    operator, verifier, registry, publish, discovered, samples, events, too
):
    liar, other = publish(90, 90), publish(50, 50)
    theirs = Verification(
        standing=Standing.QUARANTINED, reason="It claims too much.", evaluation=samples.evaluation(1, 1)
    )
    verifier.verify(liar.id, theirs)
    if too:
        operator.quarantine(liar.id, REASON)
        assert registry.knowledge(liar.id).verification == refused(samples.evaluation(1, 1))
    operator.release(liar.id)
    assert registry.knowledge(liar.id) == liar
    assert discovered(pending=True) == discovered(order="classes", classes=(1,)) == [liar.id, other.id]
    assert events(liar)[-1] == ("admin", "released", {})
    verifier.verify(liar.id, theirs)
    assert registry.knowledge(liar.id).verification == theirs


def test_each_change_is_one_public_event(operator, verifier, publish, samples, events):
    record = publish(50, 50)
    operator.release(record.id)  # nothing to change
    verifier.verify(record.id, found(samples.evaluation(40, 60)))
    for reason in (REASON, REASON, "It answers nonsense.", "It answers nonsense."):
        operator.quarantine(record.id, reason)
    for _ in range(2):
        operator.release(record.id)
    operator.quarantine(record.id, REASON)
    assert events(record)[1:] == [
        ("verifier", "verified", {"accuracy": 0.5}),
        ("admin", "quarantined", {"reason": REASON}),
        ("admin", "quarantined", {"reason": "It answers nonsense."}),
        ("admin", "released", {"standing": "verified"}),
        ("admin", "quarantined", {"reason": REASON}),
    ]


def test_a_withdrawn_record_remains_withdrawn(operator, registry, publish, discovered):
    record = publish(50, 50)
    operator.withdraw(record.id)
    operator.quarantine(record.id, REASON)
    assert registry.knowledge(record.id).verification == refused()
    assert discovered(standing=Standing.QUARANTINED) == []
    operator.release(record.id)
    assert registry.knowledge(record.id) == record
    assert discovered() == discovered(pending=True) == []


def test_only_the_operator_quarantines_and_releases(hub, operator, registry, publish):
    record = publish(50, 50)
    for token in (registry.credentials.token(), hub.verifier, hub.secret):
        with AdminClient(hub.registry, token) as somebody:
            with pytest.raises(NotAuthorizedError):
                somebody.quarantine(record.id, REASON)
            assert registry.knowledge(record.id) == record
            operator.quarantine(record.id, REASON)
            with pytest.raises(NotAuthorizedError):
                somebody.release(record.id)
            assert registry.knowledge(record.id).verification == refused()
            operator.release(record.id)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_unknown_record_is_not_found(hub, method):
    headers = {"Authorization": f"Bearer {hub.operator}"}
    answer = httpx.request(
        method, f"{hub.registry}/v1/knowledge/nothing/quarantine", json={"reason": REASON}, headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (404, "knowledge-not-found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": "  "},
        {"reason": "two\nlines"},
        {"reason": "x" * 201},
        {"reason": 1},
        {"reason": REASON, "until": "tomorrow"},
    ],
)
def test_an_invalid_reason_is_refused(hub, registry, publish, body):
    record = publish(50, 50)
    headers = {"Authorization": f"Bearer {hub.operator}"}
    path = f"{hub.registry}/v1/knowledge/{record.id}/quarantine"
    answer = httpx.post(path, json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "request-rejected")
    assert "is refused" in answer.json()["detail"]
    assert registry.knowledge(record.id) == record


def test_a_quarantine_outlives_the_service(place, tmp_path, samples):
    with closing(VaultStore(tmp_path / "vault")) as vault:
        with closing(RegistryStore(place, vault=vault)) as store:
            entity = store.register("entity").id
            record = store.publish(samples.draft(entity, vault.put(samples.weights())), key="k")
            with pytest.raises(RequestRejectedError, match="The reason of a quarantine"):
                store.quarantine(record.id, "two\nlines")
            with pytest.raises(KnowledgeNotFoundError):
                store.quarantine("nothing", REASON)
            store.quarantine(record.id, REASON)
            held = store.knowledge(record.id)
            assert held.verification == refused()
            assert vault.pinned(record.artifacts[WEIGHTS].digest) == [record.id]
        with closing(RegistryStore(place, vault=vault)) as store:
            assert store.knowledge(record.id) == held
            store.release(record.id)
            assert store.knowledge(record.id) == record
