"""An owner's training continues whatever the hub does: away, wrong, full, or refusing."""

import logging

import pytest
import torch
from torch import nn

import kuber
from kuber.entity.hub import probe
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    InsufficientStorageError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    SettingsError,
    TooLargeError,
)

from ...fixtures.waiting import wait_until
from .hub_ports import FailingPort

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(60, 2, generator=DRAWS)
Y = (X[:, 0] > 0).long()
TASK = kuber.Task(name="sides", labels=("left", "right"), input_shape=(2,))
AWAY = ServiceUnavailableError("No answer.")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(probe, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(probe, "LONGEST_PAUSE", 0.001)


@pytest.fixture
def hub():
    registry, vault = kuber.memory_hub()
    ports = FailingPort(registry), FailingPort(vault)
    yield ports
    for port in ports:
        port.may_check.set()


@pytest.fixture
def enter(hub, tmp_path):
    made = []

    def enter(name="ann", **more):
        fields = {"task": TASK, "validation": (X, Y), "formats": ("weights",), "model": network()}
        made.append(kuber.Entity(name, **(fields | {"hub": hub, "folder": tmp_path / name} | more)))
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


def network(good=False):
    model = nn.Linear(2, 2)
    scale = 5.0 if good else 0.0
    model.load_state_dict({"weight": torch.tensor([[-scale, 0.1], [scale, 0.0]]), "bias": torch.zeros(2)})
    return model


def fail(hub, error, *methods, registry=True, vault=True):
    for port, fails in zip(hub, (registry, vault), strict=True):
        port.error = error if fails else None
        port.of = methods or None
        port.may_check.clear()


def come_back(hub, entity):
    """Make both services answer, and wait until the background has found out."""
    for port in hub:
        port.error = None
        port.may_check.set()
    availability = entity._session.availability
    wait_until(lambda: all(availability._probe.answers(service) for service in availability._reasons), "the probe")


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "kuber"]


def events(tmp_path, kind, name="ann"):
    return [dict(event.detail) for event in read_events(tmp_path / name / FILE_NAME) if event.kind == kind]


def published(hub):
    return hub[0].port.discover(kuber.Query(order="oldest")).items


def improve(entity, share):
    """Make the model a little better, so that it is published."""
    with torch.no_grad():
        entity.model.weight[1, 0] = share


def test_without_a_hub_no_step_waits_and_the_owner_is_warned_once(enter, hub, caplog, tmp_path):
    entity = enter()
    entity.step()
    fail(hub, AWAY)
    entity.step()
    for port in hub:
        port.calls.clear()
    for _ in range(5):
        entity.step()
    assert hub[0].calls == hub[1].calls == []
    assert len([line for line in warnings(caplog) if "registry is unreachable" in line]) == 1
    assert "training continues, and messages to it are queued. No answer." in " ".join(warnings(caplog))
    come_back(hub, entity)
    assert hub[0].calls == []  # the background only checks; the owner's thread sends
    entity.step()
    assert {"publish", "discover"} <= set(hub[0].calls)
    assert len([line for line in warnings(caplog) if "is reachable again" in line]) >= 1
    assert [detail["service"] for detail in events(tmp_path, "reachable")].count("registry") == 1
    assert len(published(hub)) >= 1
    fail(hub, AWAY)
    entity.step()
    assert len([line for line in warnings(caplog) if "registry is unreachable" in line]) == 2


def test_registry_and_vault_fail_separately(enter, hub, caplog):
    entity = enter(publishing="auto")
    fail(hub, AWAY, registry=False)
    entity.step()
    assert not entity.publish()
    assert [line for line in warnings(caplog) if "unreachable" in line] == [warnings(caplog)[0]]
    assert "The vault is unreachable" in warnings(caplog)[0]
    hub[0].calls.clear()
    entity.step()
    assert "report" in hub[0].calls
    come_back(hub, entity)
    entity.step()
    assert len(published(hub)) == 1


def test_an_entity_trains_before_it_has_joined_and_publishes_then(enter, hub, tmp_path, caplog):
    fail(hub, AWAY)
    entity = enter()
    entity.step()
    entity.step()
    assert not entity.publish()
    assert not entity.discover()
    assert entity.keep_if_better()
    assert events(tmp_path, "joined") == []
    come_back(hub, entity)
    entity.step()
    entity.step()
    assert len(events(tmp_path, "joined")) == 1
    assert [record.sequence for record in published(hub)] == [1]


@pytest.mark.parametrize("strategy", ["kuber", "merge"])
def test_a_common_start_is_not_needed(enter, hub, strategy, caplog):
    fail(hub, AWAY)
    entity = enter(strategy=strategy)
    before = {name: tensor.clone() for name, tensor in entity.model.state_dict().items()}
    entity.step()
    entity.step()
    assert any("no common initial checkpoint" in line for line in warnings(caplog))
    come_back(hub, entity)
    entity.step()
    entity.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in entity.model.state_dict().items())


@pytest.mark.parametrize(
    ("error", "argument"),
    [
        (NotAuthorizedError("It needs an invitation."), "invitation"),
        (ConflictError("The name belongs to another key."), "folder"),
        (ServiceError("The server at x is not a KUber registry; check the address."), "hub"),
        (RequestRejectedError("The name is too long."), "name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_argument_is_raised_by_the_first_call_and_later_a_warning(
    enter, hub, tmp_path, caplog, error, argument
):
    of = () if argument == "hub" else ("register",)  # something else answers everything in its way
    fail(hub, error, *of)
    entity = enter()
    for _ in range(2):
        with pytest.raises(SettingsError, match=f"{error.message} .*`{argument}`"):
            entity.step()
    fail(hub, AWAY)
    entity.step()
    come_back(hub, entity)
    fail(hub, error, "register")
    entity.step()
    entity.step()
    assert {detail["reason"] for detail in events(tmp_path, "failed")} == {error.message}
    assert len([line for line in warnings(caplog) if error.message in line]) == 1


def test_another_service_at_the_registrys_address_is_not_a_wrong_name(enter, hub, monkeypatch):
    """A vault has no route to register, and says that the request is wrong."""
    fail(hub, RequestRejectedError("There is no route /v1/entities."), "register")
    wrong = ServiceError("The service at x is a KUber vault, not a registry; check the address.")

    def check():
        raise wrong

    monkeypatch.setattr(hub[0], "check", check, raising=False)
    with pytest.raises(SettingsError, match=r"is a KUber vault, not a registry.*`hub`"):
        enter().step()


def test_another_service_at_the_vaults_address_is_raised_by_the_first_call(enter, hub):
    fail(hub, ServiceError("The service at x is a KUber registry, not a vault; check the address."), registry=False)
    with pytest.raises(SettingsError, match="`vault`"):
        enter().step()


ERRORS = [
    RequestRejectedError("A label is too long."),
    ConflictError("The architecture is pinned."),
    NotAuthorizedError("The token was revoked."),
    CorruptKnowledgeError("The answer is malformed."),
    InsufficientStorageError("The quota is used up."),
    ServiceError("It failed with status 500."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
@pytest.mark.parametrize("method", ["publish", "discover", "report", "member", "attest", "record", "put", "get"])
def test_no_error_of_the_hub_ends_a_training(enter, hub, tmp_path, caplog, error, method):
    other = enter("other", model=network(good=True))
    other.publish()
    entity = enter()
    entity.step()
    caplog.clear()
    fail(hub, error, method)
    for share in (0.5, 1.0, 1.5):
        teachers = entity.step()
        if teachers:
            teachers(X)
        improve(entity, share)
    if method in {"publish", "discover", "report", "put"}:
        assert error.message in " ".join(warnings(caplog))
        kinds = {event.kind for event in read_events(tmp_path / "ann" / FILE_NAME)}
        assert kinds & {"failed", "dropped", "queued", "rejected"}
    fail(hub, None)
    improve(entity, 2.0)
    entity.step()
    assert entity.publish()


def test_a_rejected_publication_holds_up_no_other(enter, hub, tmp_path, caplog):
    entity = enter()
    entity.step()
    fail(hub, AWAY)
    assert not entity.publish()
    improve(entity, 1.0)
    assert not entity.publish()
    assert len(entity._journal.state.outbox) == 2
    come_back(hub, entity)
    rejected = []

    def publish(draft, *, key):
        if not rejected:
            rejected.append(draft)
            raise RequestRejectedError("A label is too long.")
        return registry.publish(draft, key=key)

    registry = hub[0].port
    hub[0].publish = publish
    entity.step()
    assert [record.sequence for record in published(hub)] == [2]
    assert events(tmp_path, "dropped") == [{"message": "publication", "reason": "A label is too long."}]
    assert len([line for line in warnings(caplog) if "A label is too long" in line]) == 1


def test_a_message_too_large_for_a_proxy_waits_for_its_limit_to_be_raised(enter, hub, tmp_path, caplog):
    entity = enter()
    entity.step()
    caplog.clear()
    fail(hub, RequestRejectedError("Something takes no body of 2 MB (status 413).", too_large=True), "put")
    for share in range(8):
        improve(entity, float(share))
        assert not entity.publish()
    assert len([line for line in warnings(caplog) if "413" in line]) == 1
    assert "is queued" in warnings(caplog)[0]
    assert events(tmp_path, "dropped") == []
    queued = len(entity._journal.state.outbox)
    assert queued == 8
    fail(hub, None)
    entity.step()
    assert [record.sequence for record in published(hub)][:queued] == list(range(1, queued + 1))


def test_a_message_too_large_for_a_proxy_holds_up_no_other(enter, hub, tmp_path, caplog):
    registry, publish = hub[0].port, hub[0].port.publish
    entity = enter()
    entity.step()
    refused = []

    def too_large(draft, *, key):
        if not refused or draft.sequence in refused:
            refused.append(draft.sequence)
            raise RequestRejectedError("Something takes no body of 2 MB (status 413).", too_large=True)
        return publish(draft, key=key)

    registry.publish = too_large
    improve(entity, 0.0)
    assert not entity.publish()
    improve(entity, 1.0)
    assert entity.publish()
    assert [record.sequence for record in published(hub)] == [2]
    entity.step()
    assert set(refused) == {1}
    assert len(entity._journal.state.outbox) == 1
    registry.publish = publish
    entity.step()
    assert [record.sequence for record in published(hub)][:1] == [2]
    assert entity._journal.state.outbox == ()
    (dropped,) = events(tmp_path, "dropped")
    assert dropped["message"] == "publication"


def test_a_message_too_large_for_the_hub_is_dropped(enter, hub, tmp_path, caplog):
    entity = enter()
    entity.step()
    fail(hub, TooLargeError("The record has 5 bytes of JSON; a registry accepts at most 4."), "publish")
    improve(entity, 0.0)
    assert not entity.publish()
    assert entity._journal.state.outbox == ()
    assert [event["message"] for event in events(tmp_path, "dropped")] == ["publication"]
    assert len([line for line in warnings(caplog) if "at most 4" in line]) == 1


@pytest.mark.parametrize(
    "error",
    [
        RequestRejectedError("No body of 2 kB (413).", too_large=True),
        InsufficientStorageError("It has no space left."),
        ServiceError("The registry failed with status 500; see its log."),
    ],
    ids=["too large", "full", "500"],
)
def test_a_hub_that_cannot_take_the_first_message_ends_no_training(enter, hub, caplog, error):
    fail(hub, error, "register")
    entity = enter()
    entity.step()
    entity.step()
    (line,) = [line for line in warnings(caplog) if error.message in line]
    assert "`name`" not in line
    fail(hub, None)
    entity.step()
    assert entity.publish()


def test_a_missing_pending_blob_holds_up_no_other(enter, hub, tmp_path):
    entity = enter()
    entity.step()
    fail(hub, AWAY)
    entity.publish()
    for file in (tmp_path / "ann" / "waiting").iterdir():
        file.unlink()
    improve(entity, 1.0)
    entity.publish()
    come_back(hub, entity)
    entity.step()
    assert [record.sequence for record in published(hub)] == [2]
    assert "missing or damaged" in events(tmp_path, "dropped")[0]["reason"]


def test_a_message_that_makes_the_hub_fail_is_dropped_after_some_tries(enter, hub, tmp_path):
    entity = enter()
    entity.step()
    fail(hub, ServiceError("It failed with status 500."), "publish")
    entity.publish()
    for _ in range(6):
        entity.step()
    assert events(tmp_path, "dropped")[0] == {"message": "publication", "reason": "It failed with status 500."}


def test_a_hub_that_is_something_else_for_a_while_loses_no_message(enter, hub, tmp_path):
    entity = enter()
    entity.step()
    fail(hub, ServiceError("The server at x is not a KUber registry; check the address."))
    entity.publish()
    for _ in range(8):
        entity.step()
    assert events(tmp_path, "dropped") == []
    fail(hub, None)
    entity.step()
    assert len(published(hub)) >= 1


def test_closing_with_queued_messages_is_said(enter, hub, caplog):
    entity = enter()
    entity.step()
    fail(hub, AWAY)
    entity.publish()
    entity.close()
    assert warnings(caplog)[-1].endswith(
        "Messages to the hub are queued (1); the next process with this folder sends them."
    )
    assert entity._session._probe._closed.is_set()


def test_warnings_are_at_the_level_warning(enter, hub, caplog):
    fail(hub, AWAY)
    enter().step()
    assert {record.levelno for record in caplog.records if record.name == "kuber"} == {logging.WARNING}


def test_variables_that_an_entity_does_not_read_are_named(enter, monkeypatch, caplog):
    monkeypatch.setenv("KUBER_STRATEGY", "merge")
    monkeypatch.setenv("KUBER_HUB", "http://127.0.0.1:1")
    monkeypatch.setenv("KUBER_REGISTRY", "http://127.0.0.1:1")
    enter()
    (line,) = warnings(caplog)
    assert "KUBER_HUB, KUBER_REGISTRY, KUBER_STRATEGY have no effect on kuber.Entity" in line
