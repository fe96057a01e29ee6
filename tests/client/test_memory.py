from datetime import UTC, datetime
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.query import Query


def hub():
    """Return a vault and a registry with counted ids and a fixed time."""
    numbers = count()
    vault = MemoryVault()
    clock = datetime(2026, 1, 1, tzinfo=UTC)
    return vault, MemoryRegistry(vault=vault, clock=lambda: clock, ids=lambda: f"id-{next(numbers)}")


def publish(claims, samples, weights=None):
    """Return a registry, and its records with these (entity, correct) claims in order."""
    vault, registry = hub()
    model = vault.put(samples.weights() if weights is None else weights)
    records = []
    for number, (name, correct) in enumerate(claims):
        entity = registry.register(f"entity-{name}").id
        changes = {"evaluation": samples.evaluation(correct, 0)}
        records.append(registry.publish(samples.draft(entity, model, **changes), key=f"act-{number}"))
    return registry, records


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    claims=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), max_size=12),
    order=st.sampled_from(["accuracy", "newest", "oldest"]),
    limit=st.integers(1, 4),
    least=st.none() | st.integers(0, 6),
    exclude=st.none() | st.integers(0, 2),
)
def test_agrees_with_a_plain_search(samples, walk, claims, order, limit, least, exclude):
    registry, records = publish(claims, samples)
    excluded = None if exclude is None else registry.register(f"entity-{exclude}").id
    minimum = None if least is None else least / 200
    expected = [
        record
        for record in records
        if record.entity != excluded and (minimum is None or record.evaluation.accuracy >= minimum)
    ]
    if order == "accuracy":
        expected.sort(key=lambda record: -record.evaluation.accuracy)  # stable: older first among equals
    elif order == "newest":
        expected.reverse()
    question = {"order": order, "limit": limit, "min_accuracy": minimum, "exclude_entity": excluded}
    assert walk(lambda cursor: registry.discover(Query(**question, cursor=cursor))) == expected


def test_the_same_calls_give_the_same_records(samples):
    claims, weights = [(0, 5), (1, 3), (0, 6)], samples.weights()
    assert publish(claims, samples, weights)[1] == publish(claims, samples, weights)[1]


def test_later_changes_of_a_draft_do_not_reach_the_record(samples):
    vault, registry = hub()
    artifacts = {"weights": vault.put(samples.weights())}
    draft = samples.draft(registry.register("entity").id, artifacts["weights"], artifacts=artifacts)
    record = registry.publish(draft, key="one")
    artifacts["onnx"] = vault.put(b"other")
    assert list(registry.knowledge(record.id).artifacts) == ["weights"]
