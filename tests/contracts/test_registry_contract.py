"""Contract of every registry."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.domain.builtin_architectures import MANIFESTS, builtin_manifest
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import CELLS, EvaluationSet
from kuber.domain.knowledge import ONNX, WEIGHTS, Artifact, TensorSpec
from kuber.domain.message_limits import MAX_SAMPLES, MAX_UNKNOWN_CLASSES
from kuber.domain.tensors_digest import tensors_digest
from kuber.domain.verification import Standing, Verification
from kuber.errors import ConflictError, KnowledgeNotFoundError, NotAuthorizedError, RequestRejectedError


@pytest.fixture
def delivery(entity, publish):
    teacher = publish(entity)
    return Delivery(
        student=entity,
        teachers=(teacher.id,),
        method="distil",
        round=2,
        accuracy_before=0.1 + 0.2,
        accuracy_after=1 / 3,
        kept=True,
    )


def test_the_same_name_is_the_same_member(registry, samples):
    member = registry.register(samples.name())
    assert member.name == samples.name()
    assert member.registered_at.utcoffset() == timedelta(0)
    assert registry.register(samples.name()) == member
    assert registry.register(samples.name("other")).id != member.id


def evaluated(classes, samples=1):
    return Evaluation(test_set=Digest.of(b"reported"), correct=(0,) * classes, total=(samples,) * classes)


def test_a_report_has_the_classes_of_the_task(registry, samples, entity, publish):
    newcomer = registry.register(samples.name("newcomer")).id
    registry.report(newcomer, round=1)
    registry.report(newcomer, round=1, evaluation=evaluated(MAX_UNKNOWN_CLASSES))
    with pytest.raises(RequestRejectedError, match=f"has {MAX_UNKNOWN_CLASSES + 1} classes.*at most"):
        registry.report(newcomer, round=1, evaluation=evaluated(MAX_UNKNOWN_CLASSES + 1))
    classes = publish(entity).task.classes
    registry.report(entity, round=1, evaluation=evaluated(classes))
    with pytest.raises(RequestRejectedError, match=f"has {classes + 1} classes, and the entity's records have"):
        registry.report(entity, round=1, evaluation=evaluated(classes + 1))


def test_refuses_more_samples_than_possible(registry, samples, entity, publish):
    newcomer = registry.register(samples.name("newcomer")).id
    registry.report(newcomer, round=1, evaluation=evaluated(1, MAX_SAMPLES))
    with pytest.raises(RequestRejectedError, match=r"is of 1,000,000,000,002 samples.*at most 1,000,000,000,000\.$"):
        registry.report(newcomer, round=1, evaluation=evaluated(2, MAX_SAMPLES // 2 + 1))
    record = publish(entity)
    lie = replace(record.evaluation, total=tuple(2**62 for _ in record.evaluation.total))
    with pytest.raises(RequestRejectedError, match="samples"):
        registry.attest(record.id, entity=newcomer, evaluation=lie)


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "two\nlines", "nul\0", "zero\u200bwidth", "\u3164"], ids=ascii)
def test_refuses_impossible_names(registry, name):
    with pytest.raises(RequestRejectedError):
        registry.register(name)


def test_accepts_names_of_any_script(registry, samples):
    name = samples.name("Größe 机器")
    assert registry.register(name).name == name


def test_a_name_that_looks_like_another_is_refused(registry, samples):
    member = registry.register(samples.name("alice"))
    for alike in ("\u0430lice", "ALICE", "a1ice"):
        with pytest.raises(ConflictError, match="can be mistaken for"):
            registry.register(samples.name(alike))
    for same in (samples.name("\uff41lice"), f" {samples.name('alice')} "):
        assert registry.register(same) == member


def test_lists_members_earliest_first(registry, samples, walk):
    joined = [registry.register(samples.name(f"entity-{number}")) for number in (3, 1, 2)]
    members = walk(lambda cursor: registry.members(limit=2, cursor=cursor))
    assert [member for member in members if member in joined] == joined


def test_many_may_register_at_once(registry, samples):
    with ThreadPoolExecutor(4) as pool:
        members = set(pool.map(registry.register, [samples.name()] * 8))
    assert len(members) == 1


def test_publishes_the_draft_with_id_and_time(registry, samples, entity, stored):
    draft = samples.draft(entity, stored, sample_count=7, class_counts=(3, 4), round=5)
    record = registry.publish(draft, key="one")
    assert record.draft == replace(draft, sequence=record.sequence, signature=record.signature, hub=record.hub)
    assert record.published_at.utcoffset() == timedelta(0)
    assert registry.knowledge(record.id) == record
    kinds = {name: type(value) for name, value in record.architecture.arguments.items()}
    assert kinds == {"width": int, "bias": bool, "scale": float, "kind": str, "blocks": tuple}


@pytest.mark.parametrize("cells", CELLS)
def test_a_record_says_what_its_publishers_own_data_are(registry, samples, entity, stored, cells):
    task = replace(samples.task, test_set=None)
    own = EvaluationSet(since=date(2026, 1, 31), cells=cells)
    record = registry.publish(samples.draft(entity, stored, task=task, evaluation_set=own), key="one")
    assert record.evaluation_set == own
    assert registry.knowledge(record.id) == record


@pytest.mark.parametrize("prior", ["own", "uniform", None])
def test_a_record_says_which_prior_its_logits_carry(registry, samples, entity, stored, prior):
    record = registry.publish(samples.draft(entity, stored, prior=prior), key="one")
    assert record.prior == prior
    assert registry.knowledge(record.id) == record


def test_the_same_key_gives_the_first_record(registry, samples, entity, stored, discovered):
    draft = samples.draft(entity, stored)
    record = registry.publish(draft, key="one")
    assert registry.publish(draft, key="one") == record
    assert discovered() == [record]
    assert registry.publish(draft, key="two").id != record.id


def test_many_may_publish_the_same_at_once(registry, samples, entity, stored, discovered):
    draft = samples.draft(entity, stored)
    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(lambda _: registry.publish(draft, key="one"), range(8)))
    assert {record.id for record in records} == {record.id for record in discovered()}
    assert len(discovered()) == 1


def test_a_key_is_for_one_draft_of_one_entity(registry, samples, entity, stored):
    draft = samples.draft(entity, stored)
    record = registry.publish(draft, key="one")
    with pytest.raises(ConflictError):
        registry.publish(replace(draft, round=2), key="one")
    other = registry.register(samples.name("other")).id
    assert registry.publish(replace(draft, entity=other), key="one").id != record.id


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_refuses_impossible_keys(registry, samples, entity, stored, delivery, key):
    with pytest.raises(RequestRejectedError):
        registry.publish(samples.draft(entity, stored), key=key)
    with pytest.raises(RequestRejectedError):
        registry.record(delivery, key=key)


def test_refuses_an_unknown_publisher(registry, samples, stored):
    with pytest.raises((RequestRejectedError, NotAuthorizedError)):
        registry.publish(samples.draft("nobody", stored), key="one")


def test_keeps_known_parents(publish, entity):
    parents = (publish(entity).id, publish(entity).id)
    assert publish(entity, parents=parents[::-1]).parents == parents[::-1]


def test_refuses_unknown_parents(publish, entity):
    with pytest.raises(RequestRejectedError, match="stork"):
        publish(entity, parents=(publish(entity).id, "stork"))


def test_refuses_blobs_that_are_not_in_the_vault(registry, samples, entity, stored):
    missing = Artifact(digest=Digest.of(samples.weights()), size=stored.size)
    with pytest.raises(RequestRejectedError, match=missing.digest.hex):
        registry.publish(samples.draft(entity, missing), key="one")
    with pytest.raises(RequestRejectedError, match="bytes"):
        registry.publish(samples.draft(entity, replace(stored, size=stored.size + 1)), key="one")
    assert registry.publish(samples.draft(entity, stored), key="one")


def test_pins_the_blobs_of_a_record(registry, vault, place, samples, entity, stored):
    record = registry.publish(samples.draft(entity, stored), key="one")
    if place != "http":  # the port does not tell what is pinned
        assert vault.pinned(stored.digest) == [record.id]


def test_refuses_weights_other_than_declared(registry, vault, samples, entity):
    other = vault.put(samples.weights({"weight": TensorSpec(dtype="F32", shape=(4, 2))}))
    with pytest.raises(RequestRejectedError, match="other tensors"):
        registry.publish(samples.draft(entity, other), key="one")


@pytest.mark.parametrize(
    "data",
    [b"x", b"\xff" * 100, (2**62).to_bytes(8, "little") + b"{}", b"\x02" + bytes(7) + b"[]"],
    ids=["short", "noise", "huge", "list"],
)
def test_refuses_weights_without_a_valid_header(registry, vault, samples, entity, data):
    with pytest.raises(RequestRejectedError, match="not a valid weights artifact"):
        registry.publish(samples.draft(entity, vault.put(data)), key="one")


def test_reads_headers_of_many_tensors(publish, samples, entity):
    manifest = {f"block.{number}.weight": TensorSpec(dtype="F32", shape=(1,)) for number in range(2000)}
    architecture = replace(samples.architecture, manifest=manifest)
    assert publish(entity, architecture=architecture).architecture == architecture


def test_refuses_unknown_artifact_kinds(registry, vault, place, samples, entity, stored):
    draft = samples.draft(entity, stored, artifacts={"weights": stored, "pickle": stored})
    with pytest.raises(RequestRejectedError, match="'pickle'"):
        registry.publish(draft, key="one")
    if place != "http":
        assert vault.pinned(stored.digest) == []


def test_a_refused_record_leaves_no_pin(registry, vault, place, samples, entity, walk):
    other = vault.put(samples.weights({"weight": TensorSpec(dtype="F32", shape=(4, 2))}))
    with pytest.raises(RequestRejectedError, match="other tensors"):
        registry.publish(samples.draft(entity, other), key="one")
    if place == "http":
        assert other.digest not in {pin.digest for pin in walk(lambda cursor: vault.pins(cursor=cursor))}
    else:
        assert vault.pinned(other.digest) == []


def test_an_architecture_keeps_the_tensors_of_its_first_record(publish, samples, entity):
    publish(entity)
    manifest = {"weight": TensorSpec(dtype="F32", shape=(2, 5))}
    with pytest.raises(ConflictError, match="pinned"):
        publish(entity, architecture=replace(samples.architecture, manifest=manifest))
    publish(entity, architecture=replace(samples.architecture, manifest=manifest, arguments={"width": 5}))
    publish(entity, architecture=replace(samples.architecture, manifest=manifest, arguments={"width": 5.0}))


WIDE = {"weight": TensorSpec(dtype="F32", shape=(2, 5))}


@pytest.mark.parametrize("hidden", ["withdrawn", "quarantined"])
def test_a_pin_goes_with_the_last_visible_record(registry, verifier, publish, samples, entity, hidden):
    first, second = publish(entity), publish(entity)
    wide = replace(samples.architecture, manifest=WIDE)

    def hide(record):
        if hidden == "withdrawn":
            registry.withdraw(record.id)
        else:
            verifier.verify(record.id, Verification(standing=Standing.QUARANTINED, reason="It lies."))

    hide(first)
    with pytest.raises(ConflictError, match="pinned"):
        publish(entity, architecture=wide)
    hide(second)
    assert publish(entity, architecture=wide).architecture == wide
    assert publish(entity, architecture=wide).architecture == wide
    assert registry.knowledge(first.id).architecture == samples.architecture
    with pytest.raises(ConflictError, match="pinned"):
        publish(entity)


@pytest.mark.parametrize("name", MANIFESTS)
def test_no_record_decides_the_tensors_of_a_built_in_architecture(publish, samples, entity, name):
    arguments = {"input_shape": (3, 32, 32), "classes": 10}
    bogus = replace(samples.architecture, name=name, arguments=arguments, manifest=WIDE)
    with pytest.raises(RequestRejectedError, match=r"is built in.*under another name"):
        publish(entity, architecture=bogus)
    built_in = replace(bogus, manifest=dict(builtin_manifest(bogus)))
    assert publish(entity, architecture=built_in).architecture == built_in
    # With other arguments the name is its owner's own, and a graph alone has no tensors.
    publish(entity, architecture=replace(bogus, arguments={"depth": 3}))


def test_text_that_cannot_be_stored_is_refused(registry, samples, entity, stored):
    architecture = replace(samples.architecture, arguments={"kind": "nul\0"})
    with pytest.raises(RequestRejectedError, match="NUL or half of a surrogate"):
        registry.publish(samples.draft(entity, stored, architecture=architecture), key="one")


def test_a_stated_digest_of_the_tensors_is_that_of_the_record(publish, samples, entity):
    arguments = {"tensors": tensors_digest(WIDE), "modules": "00"}
    with pytest.raises(RequestRejectedError, match="digest"):
        publish(entity, architecture=replace(samples.architecture, arguments=arguments))
    publish(entity, architecture=replace(samples.architecture, arguments=arguments, manifest=WIDE))


def test_refuses_drafts_beyond_the_limits(registry, samples, entity, stored):
    task = replace(samples.task)
    object.__setattr__(task, "labels", ("even", "o" * 201))  # of a client without the checks of Task
    with pytest.raises(RequestRejectedError, match=r"task\.labels\.1"):
        registry.publish(samples.draft(entity, stored, task=task), key="one")


@pytest.mark.parametrize("id", ["nothing", "", ".", "..", "a/b", "../entities", "a?b", "ü", "x" * 300])
def test_does_not_find_what_it_does_not_have(registry, id):
    with pytest.raises(KnowledgeNotFoundError):
        registry.knowledge(id)


def test_records_a_delivery_once(registry, delivery, walk):
    registry.record(delivery, key="one")
    registry.record(delivery, key="one")
    other = replace(delivery, kept=False, round=3)
    registry.record(other, key="two")
    recorded = walk(lambda cursor: registry.deliveries(limit=1, cursor=cursor))
    assert [item for item in recorded if item.student == delivery.student] == [delivery, other]


@pytest.mark.parametrize("reason", ["The newest of 3; größer als 50.0 %, 你好.", "x" * 500, None])
def test_a_delivery_keeps_its_reason(registry, delivery, walk, reason):
    explained = replace(delivery, reason=reason)
    registry.record(explained, key="one")
    recorded = walk(lambda cursor: registry.deliveries(cursor=cursor))
    assert [item for item in recorded if item.student == delivery.student] == [explained]


def test_a_delivery_refers_to_known_objects_only(registry, delivery):
    with pytest.raises((RequestRejectedError, NotAuthorizedError)):
        registry.record(replace(delivery, student="nobody"), key="one")
    with pytest.raises(RequestRejectedError, match="nothing"):
        registry.record(replace(delivery, teachers=(*delivery.teachers, "nothing")), key="one")


def test_a_withdrawn_record_is_not_discovered(publish, registry, entity, discovered):
    older, newer = publish(entity, 50, 50), publish(entity, 60, 60)
    registry.withdraw(newer.id)
    registry.withdraw(newer.id)
    for order in ({}, {"order": "newest"}, {"order": "oldest"}, {"order": "classes", "classes": (0,)}):
        assert discovered(**order) == [older]
        assert discovered(latest=True, **order) == [older]
        assert discovered(latest=True, initial=False, **order) == [older]
    assert registry.knowledge(newer.id) == newer
    registry.withdraw(older.id)
    assert discovered() == discovered(latest=True) == []
    with pytest.raises(KnowledgeNotFoundError):
        registry.withdraw("nothing")


@pytest.fixture
def verifier(registry, request):
    """The registry with the token of the hub's verifier."""
    if not isinstance(registry, HttpRegistry):
        yield registry
        return
    hub = request.getfixturevalue("hub")
    with HttpRegistry(hub.registry, credentials=Credentials(token=hub.verifier)) as client:
        yield client


def test_a_copy_names_the_first_record_of_another_publisher(publish, registry, samples, entity):
    first = publish(entity)
    thief = registry.register(samples.name("thief")).id
    copy = publish(thief, artifacts=first.artifacts)
    assert (first.copy_of, copy.copy_of) == (None, first.id)
    assert registry.knowledge(copy.id).copy_of == first.id
    assert publish(entity, artifacts=first.artifacts).copy_of is None, "it was the first"
    start = publish(entity, round=0)
    assert publish(thief, artifacts=start.artifacts, round=0).copy_of is None
    assert publish(thief, artifacts=start.artifacts).copy_of is None, "everybody knows the common start"


def test_entities_attest_knowledge_of_others(publish, registry, samples, entity):
    record, other = publish(entity, 60, 60), registry.register(samples.name("other")).id
    for correct in ((10, 10), (50, 40)):
        registry.attest(record.id, entity=other, evaluation=samples.evaluation(*correct))
    (attestation,) = registry.attestations(record.id)
    assert (attestation.entity, attestation.evaluation) == (other, samples.evaluation(50, 40))
    assert registry.knowledge(record.id) == record  # what it claims is its own
    with pytest.raises(RequestRejectedError, match="your own"):
        registry.attest(record.id, entity=entity, evaluation=samples.evaluation(1, 1))
    elsewhere = replace(samples.evaluation(1, 1), test_set=Digest.of(b"another"))
    with pytest.raises(RequestRejectedError, match="common test set"):
        registry.attest(record.id, entity=other, evaluation=elsewhere)
    with pytest.raises(KnowledgeNotFoundError):
        registry.attest("nothing", entity=other, evaluation=samples.evaluation(1, 1))


def test_verified_records_are_ranked_by_the_verification(publish, registry, verifier, samples, entity, discovered):
    boaster, honest, unseen = publish(entity, 90, 30), publish(entity, 50, 50), publish(entity, 45, 52)
    assert discovered(pending=True) == [boaster, honest, unseen]
    verifier.verify(boaster.id, found(samples, 20, 28))
    verifier.verify(honest.id, found(samples, 50, 50))
    boaster, honest = registry.knowledge(boaster.id), registry.knowledge(honest.id)
    assert boaster.verification == found(samples, 20, 28)
    assert boaster.evaluation == samples.evaluation(90, 30)
    assert discovered() == [honest, unseen, boaster]
    assert discovered(min_accuracy=0.3) == [honest, unseen]
    assert discovered(order="classes", classes=(1,)) == [unseen, honest, boaster]
    assert discovered(standing=Standing.VERIFIED) == [honest, boaster]
    assert discovered(pending=True) == [unseen]
    verifier.verify(boaster.id, Verification(standing=Standing.UNVERIFIABLE, reason="No such network here."))
    assert [record.id for record in discovered()] == [boaster.id, honest.id, unseen.id]


def test_quarantined_records_are_not_discovered(publish, registry, verifier, samples, entity, discovered):
    sound, liar = publish(entity, 50, 50), publish(entity, 90, 90)
    refused = Verification(
        standing=Standing.QUARANTINED, reason="It claims too much.", evaluation=samples.evaluation(1, 1)
    )
    verifier.verify(liar.id, refused)
    for order in ({}, {"order": "newest"}, {"order": "oldest"}, {"order": "classes", "classes": (0,)}):
        assert discovered(**order) == discovered(latest=True, **order) == [sound]
    assert [record.id for record in discovered(standing=Standing.QUARANTINED)] == [liar.id]
    assert registry.knowledge(liar.id).verification == refused
    verifier.verify(liar.id, found(samples, 90, 90))
    assert [record.id for record in discovered(latest=True)] == [liar.id]


def found(samples, *correct):
    return Verification(standing=Standing.VERIFIED, reason="Found.", evaluation=samples.evaluation(*correct))


def test_claims_on_the_publishers_own_data_are_listed_side_by_side(publish, registry, samples, entity, discovered):
    """Without a common test set, each record names its own test set, and nobody attests it."""
    alone = replace(samples.task, test_set=None)
    other = registry.register(samples.name("other")).id
    sets = [Digest.of(f"{place} {samples.token}".encode()) for place in "ab"]
    records = [
        publish(who, 60, 40, task=alone, evaluation=replace(samples.evaluation(60, 40), test_set=own))
        for who, own in zip((entity, other), sets, strict=True)
    ]
    assert [record.task.test_set for record in records] == [None, None]
    assert [registry.knowledge(record.id) for record in records] == records
    assert discovered(order="newest", latest=True) == records[::-1]
    assert discovered(order="oldest", latest=True) == records
    assert discovered(test_set=sets[0]) == records[:1]
    with pytest.raises(RequestRejectedError, match="common test set"):
        registry.attest(records[1].id, entity=entity, evaluation=records[1].evaluation)


def test_a_graph_alone_can_be_published(registry, vault, samples, entity):
    """The file is a ModelProto with ir_version 8, an empty graph and operator set 17."""
    graph = vault.put(b"\x08\x08\x3a\x00\x42\x02\x10\x11\x12" + bytes([32]) + samples.token.encode())
    without = replace(samples.architecture, manifest={})
    draft = samples.draft(entity, graph, architecture=without, artifacts={ONNX: graph})
    record = registry.publish(draft, key="graph")
    assert (record.artifacts, record.architecture) == (draft.artifacts, without)
    assert registry.knowledge(record.id) == record
    # A record without a manifest does not pin the tensors of the records that have one.
    weights = vault.put(samples.weights())
    both = registry.publish(samples.draft(entity, weights, artifacts={WEIGHTS: weights, ONNX: graph}), key="both")
    assert dict(both.artifacts) == {WEIGHTS: weights, ONNX: graph}


def test_refuses_an_invalid_graph(registry, vault, samples, entity):
    graph = vault.put(b"no graph" + samples.token.encode())
    with pytest.raises(RequestRejectedError, match="not a valid onnx artifact"):
        registry.publish(samples.draft(entity, graph, artifacts={ONNX: graph}), key="graph")
