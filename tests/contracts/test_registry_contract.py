"""What every registry does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.knowledge import ONNX, WEIGHTS, Artifact, TensorSpec
from kuber.domain.member import Key
from kuber.domain.query import Query
from kuber.domain.verification import Standing, Verification
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    KnowledgeNotFoundError,
    NotAuthorizedError,
    RequestRejectedError,
)
from kuber.signing import Identity
from kuber.wire import record_bytes, succession_bytes


@pytest.fixture
def entity(registry, samples):
    return registry.register(samples.name()).id


@pytest.fixture
def stored(vault, samples):
    return vault.put(samples.weights())


@pytest.fixture
def discovered(registry, samples, walk):
    """Every record of this test's task, in pages of two."""

    def every(**changes):
        query = Query(task=samples.task.name, limit=2, **changes)
        return walk(lambda cursor: registry.discover(replace(query, cursor=cursor)))

    return every


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


@pytest.mark.parametrize("name", ["", "x" * 201, "two\nlines", "nul\0"])
def test_refuses_impossible_names(registry, name):
    with pytest.raises(RequestRejectedError):
        registry.register(name)


def test_takes_names_of_any_script(registry, samples):
    name = samples.name("Größe 机器")
    assert registry.register(name).name == name


def test_lists_members_first_come_first(registry, samples, walk):
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
    told = replace(draft, sequence=record.sequence, signature=record.signature)
    assert record.draft == told
    assert record.published_at.utcoffset() == timedelta(0)
    assert registry.knowledge(record.id) == record
    kinds = {name: type(value) for name, value in record.architecture.arguments.items()}
    assert kinds == {"width": int, "bias": bool, "scale": float, "kind": str, "blocks": tuple}


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


def test_a_key_names_one_draft_of_one_entity(registry, samples, entity, stored):
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


def test_refuses_a_publisher_it_does_not_know(registry, samples, stored):
    with pytest.raises((RequestRejectedError, NotAuthorizedError)):
        registry.publish(samples.draft("nobody", stored), key="one")


def test_keeps_parents_that_it_knows(publish, entity):
    parents = (publish(entity).id, publish(entity).id)
    assert publish(entity, parents=parents[::-1]).parents == parents[::-1]


def test_refuses_parents_that_it_does_not_know(publish, entity):
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


def test_refuses_weights_that_are_not_those_told(registry, vault, samples, entity):
    other = vault.put(samples.weights({"weight": TensorSpec(dtype="F32", shape=(4, 2))}))
    with pytest.raises(RequestRejectedError, match="other tensors"):
        registry.publish(samples.draft(entity, other), key="one")


@pytest.mark.parametrize(
    "data",
    [b"x", b"\xff" * 100, (2**62).to_bytes(8, "little") + b"{}", b"\x02" + bytes(7) + b"[]"],
    ids=["short", "noise", "huge", "list"],
)
def test_refuses_weights_without_a_sound_header(registry, vault, samples, entity, data):
    with pytest.raises(RequestRejectedError, match="no sound weights"):
        registry.publish(samples.draft(entity, vault.put(data)), key="one")


def test_reads_headers_of_many_tensors(publish, samples, entity):
    manifest = {f"block.{number}.weight": TensorSpec(dtype="F32", shape=(1,)) for number in range(2000)}
    architecture = replace(samples.architecture, manifest=manifest)
    assert publish(entity, architecture=architecture).architecture == architecture


def test_refuses_artifacts_of_a_kind_that_it_cannot_check(registry, vault, place, samples, entity, stored):
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


def test_refuses_what_is_too_long_to_send(registry, samples, entity, stored):
    task = replace(samples.task, labels=("even", "o" * 201))
    with pytest.raises(RequestRejectedError, match=r"task\.labels\.1"):
        registry.publish(samples.draft(entity, stored, task=task), key="one")


def test_discovers_the_best_first_and_older_first_among_equals(publish, entity, discovered):
    records = [publish(entity, *correct) for correct in ((50, 50), (70, 10), (20, 80), (90, 90), (60, 40))]
    best = [records[3], records[0], records[2], records[4], records[1]]
    assert discovered() == best


def test_discovers_the_newest_first(publish, entity, discovered):
    records = [publish(entity, *correct) for correct in ((50, 50), (70, 10), (90, 90))]
    assert discovered(order="newest") == records[::-1]
    assert discovered(order="oldest") == records


def test_filters(publish, registry, samples, entity, discovered):
    other = registry.register(samples.name("other")).id
    mine, better, worse = publish(entity, 50, 50), publish(other, 60, 60), publish(other, 10, 10)
    elsewhere = replace(samples.task, test_set=Digest.of(b"elsewhere", samples.token.encode()))
    moved = replace(samples.evaluation(55, 55), test_set=elsewhere.test_set)
    strange = publish(other, task=elsewhere, evaluation=moved)
    assert discovered() == [better, strange, mine, worse]
    assert discovered(test_set=samples.test_set) == [better, mine, worse]
    assert discovered(test_set=samples.test_set, exclude_entity=entity) == [better, worse]
    assert discovered(min_accuracy=0.5) == [better, strange, mine]
    assert discovered(min_accuracy=0.5, order="newest") == [strange, better, mine]
    assert discovered(min_accuracy=0.61) == []
    assert registry.discover(Query(task=samples.name("no task"))).items == ()


def test_keeps_the_origin(publish, entity):
    origin = Digest.of(b"initial checkpoint")
    assert publish(entity, origin=origin, round=0).origin == origin
    assert publish(entity).origin is None


def test_finds_what_descends_from_an_initial_checkpoint(publish, registry, samples, entity, discovered):
    origin, other = Digest.of(b"initial checkpoint"), registry.register(samples.name("other")).id
    old, new = publish(entity, 90, 90, origin=origin), publish(entity, 10, 10, origin=origin)
    theirs = publish(other, 50, 50, origin=origin)
    publish(other, 80, 80, task=replace(samples.task, name=samples.name("another task")), origin=Digest.of(b"b"))
    publish(registry.register(samples.name("stranger")).id, 95, 95)
    assert discovered(origin=origin) == [old, theirs, new]
    assert discovered(origin=origin, latest=True, order="newest") == [theirs, new]
    assert discovered(origin=Digest.of(b"none")) == []


def test_tells_initial_checkpoints_from_what_was_trained(publish, entity, discovered):
    initial, trained = publish(entity, round=0), publish(entity, round=1)
    assert discovered(initial=True) == [initial]
    assert discovered(initial=False) == [trained]


def test_the_latest_of_each_entity_on_each_task(publish, registry, samples, entity, discovered):
    other = registry.register(samples.name("other")).id
    publish(entity, 90, 90)
    theirs = [publish(other, 10 * number, 10) for number in (1, 2, 3)][-1]
    mine = publish(entity, 50, 50)
    publish(entity, 80, 80, task=replace(samples.task, name=samples.name("another task")))
    assert discovered(latest=True) == [mine, theirs]
    assert discovered(latest=True, order="newest") == [mine, theirs]
    assert discovered(latest=True, order="classes", classes=(0,)) == [mine, theirs]
    assert discovered(latest=True, exclude_entity=entity) == [theirs]


def test_ranks_by_the_classes_asked_for(publish, entity, discovered):
    records = [publish(entity, *correct) for correct in ((50, 33), (70, 10), (20, 33), (90, 90), (60, 34))]
    assert discovered(order="classes", classes=(1,)) == [records[n] for n in (3, 4, 0, 2, 1)]
    assert discovered(order="classes", classes=(0, 1)) == [records[n] for n in (3, 4, 0, 1, 2)]
    assert discovered(order="classes", classes=(7,)) == records


def test_pages_by_classes_hold_each_record_once(publish, samples, entity, discovered):
    """Thirds are no whole millionths: both sides of a page must round them alike."""
    counts = [(1, 0, 1), (1, 0, 2), (1, 0, 1), (2, 3, 1), (0, 3, 3)]
    task = replace(samples.task, labels=("a", "b", "c"))
    records = [publish(entity, task=task, evaluation=samples.evaluation(*correct, total=3)) for correct in counts]
    assert discovered(order="classes", classes=(0,)) == [records[n] for n in (3, 0, 1, 2, 4)]
    assert discovered(order="classes", classes=(0, 2)) == [records[n] for n in (4, 1, 3, 0, 2)]


def test_a_new_initial_checkpoint_hides_no_trained_knowledge(publish, entity, discovered):
    trained = publish(entity, 50, 50)
    initial = publish(entity, 10, 10, round=0)
    for order in ({}, {"order": "newest"}, {"order": "oldest"}, {"order": "classes", "classes": (0,)}):
        assert discovered(latest=True, initial=False, **order) == [trained]
        assert discovered(latest=True, **order) == [initial]


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "classes", "classes": (1, 1)},
        {"order": "classes"},
        {"classes": (1,)},
        {"order": "classes", "classes": (-1,)},
    ],
)
def test_classes_go_with_their_order(changes):
    with pytest.raises(ValueError, match="classes"):
        Query(**changes)


def test_pages_hold_still_while_others_publish(publish, registry, samples, entity):
    first, second, third = publish(entity, 90, 90), publish(entity, 50, 50), publish(entity, 50, 50)
    page = registry.discover(Query(task=samples.task.name, limit=2))
    assert page.items == (first, second)
    publish(entity, 95, 95)
    late = publish(entity, 50, 50)
    rest = registry.discover(Query(task=samples.task.name, limit=2, cursor=page.cursor))
    assert rest.items == (third, late)
    assert rest.cursor is None


@pytest.mark.parametrize("cursor", ["nonsense", "", "accuracy:", "accuracy:-1", "newest:99999999999999999999"])
def test_refuses_cursors_that_it_did_not_give(registry, cursor):
    with pytest.raises(RequestRejectedError):
        registry.discover(Query(cursor=cursor))
    with pytest.raises(RequestRejectedError):
        registry.members(cursor=cursor)
    with pytest.raises(RequestRejectedError):
        registry.deliveries(cursor=cursor)


def test_refuses_cursors_of_another_order(publish, registry, samples, entity):
    for _ in range(2):
        publish(entity)
    cursor = registry.discover(Query(task=samples.task.name, limit=1)).cursor
    with pytest.raises(RequestRejectedError):
        registry.discover(Query(task=samples.task.name, limit=1, cursor=cursor, order="newest"))


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_refuses_pages_of_impossible_size(registry, limit):
    with pytest.raises(RequestRejectedError):
        registry.members(limit=limit)
    with pytest.raises(RequestRejectedError):
        registry.deliveries(limit=limit)


@pytest.mark.parametrize("id", ["nothing", "", ".", "..", "a/b", "../entities", "a?b", "ü", "x" * 300])
def test_knows_what_it_has_not(registry, id):
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
    told = replace(delivery, reason=reason)
    registry.record(told, key="one")
    recorded = walk(lambda cursor: registry.deliveries(cursor=cursor))
    assert [item for item in recorded if item.student == delivery.student] == [told]


def test_a_delivery_names_only_what_is_there(registry, delivery):
    with pytest.raises((RequestRejectedError, NotAuthorizedError)):
        registry.record(replace(delivery, student="nobody"), key="one")
    with pytest.raises(RequestRejectedError, match="nothing"):
        registry.record(replace(delivery, teachers=(*delivery.teachers, "nothing")), key="one")


def test_a_withdrawn_record_is_found_no_more(publish, registry, entity, discovered):
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


def test_a_member_is_told_by_its_id(registry, entity):
    (member,) = [one for one in registry.members(limit=1000).items if one.id == entity]
    assert registry.member(entity) == member
    with pytest.raises(KnowledgeNotFoundError):
        registry.member("nobody")


def as_signed(registry, draft, *, key):
    """Publish a draft as it is: the registry of these tests would sign it itself."""
    plain = HttpRegistry if isinstance(registry, HttpRegistry) else type(registry)
    return plain.publish(registry, draft, key=key)


@pytest.fixture
def signer(registry, samples):
    """An entity with a key, and the key."""
    identity = registry.credentials.identity if isinstance(registry, HttpRegistry) else Identity.new()
    return registry.register(samples.name("signer"), public_key=identity.public_key), identity


def test_a_name_belongs_to_a_key(registry, signer):
    member, identity = signer
    assert registry.register(member.name, public_key=identity.public_key) == member
    with pytest.raises(ConflictError):
        registry.register(member.name, public_key=Identity.new().public_key)


def test_what_is_signed_is_kept_and_counted(registry, signer, samples, stored):
    member, identity = signer
    draft = replace(samples.draft(member.id, stored), sequence=7)
    signed = replace(draft, signature=identity.sign(record_bytes(draft)))
    record = as_signed(registry, signed, key="one")
    assert (record.sequence, record.signature) == (7, signed.signature)
    assert as_signed(registry, signed, key="one") == record
    assert registry.member(member.id).sequence == 7
    for sequence in (6, 7):
        late = replace(draft, sequence=sequence)
        late = replace(late, signature=identity.sign(record_bytes(late)))
        with pytest.raises(ConflictError, match="sent once"):
            as_signed(registry, late, key=f"late {sequence}")


@pytest.mark.parametrize("change", [{"round": 3}, {"signature": "0" * 128}, {"sequence": 8}])
def test_what_was_changed_is_refused(registry, signer, samples, stored, change):
    member, identity = signer
    draft = replace(samples.draft(member.id, stored), sequence=7)
    signed = replace(draft, signature=identity.sign(record_bytes(draft)))
    with pytest.raises(CorruptKnowledgeError):
        as_signed(registry, replace(signed, **change), key="one")
    with pytest.raises(RequestRejectedError, match="sign it"):
        as_signed(registry, draft, key="two")


def test_a_key_follows_another(registry, signer):
    member, identity = signer
    key = Key(public_key=Identity.new().public_key, since=5)
    with pytest.raises(RequestRejectedError):
        registry.change_key(member.id, key)
    with pytest.raises(CorruptKnowledgeError):
        registry.change_key(member.id, replace(key, signature="0" * 128))
    vouched = replace(key, signature=identity.sign(succession_bytes(member.id, key)))
    changed = registry.change_key(member.id, vouched)
    assert changed.keys == (*member.keys, vouched)
    assert registry.change_key(member.id, vouched) == changed
    assert registry.member(member.id).key_for(4) == member.keys[0]
    assert registry.member(member.id).key_for(5) == vouched


@pytest.fixture
def verifier(registry, request):
    """The registry, asked by the hub's verifier."""
    if not isinstance(registry, HttpRegistry):
        yield registry
        return
    hub = request.getfixturevalue("hub")
    with HttpRegistry(hub.registry, credentials=Credentials(token=hub.verifier)) as client:
        yield client


def test_entities_attest_what_others_publish(publish, registry, samples, entity):
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


def test_what_is_verified_is_ranked_by_what_was_found(publish, registry, verifier, samples, entity, discovered):
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


def test_what_is_quarantined_is_found_no_more(publish, registry, verifier, samples, entity, discovered):
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


def test_claims_on_data_of_the_publishers_own_stand_beside_one_another(
    publish, registry, samples, entity, discovered
):
    """A task without a common test set: each record names what it was evaluated on, and nobody attests it."""
    alone = replace(samples.task, test_set=None)
    other = registry.register(samples.name("other")).id
    sets = [Digest.of(f"{place} {samples.token}".encode()) for place in "ab"]
    records = [
        publish(who, 60, 40, task=alone, evaluation=replace(samples.evaluation(60, 40), test_set=own))
        for who, own in zip((entity, other), sets, strict=True)
    ]
    assert [one.task.test_set for one in records] == [None, None]
    assert [registry.knowledge(one.id) for one in records] == records
    assert discovered(order="newest", latest=True) == records[::-1]
    assert discovered(order="oldest", latest=True) == records
    assert discovered(test_set=sets[0]) == records[:1]
    with pytest.raises(RequestRejectedError, match="common test set"):
        registry.attest(records[1].id, entity=entity, evaluation=records[1].evaluation)


def test_a_graph_alone_is_knowledge(registry, vault, samples, entity):
    """ModelProto with ir_version 8, an empty graph and operator set 17; what runs it looks closer."""
    graph = vault.put(b"\x08\x08\x3a\x00\x42\x02\x10\x11\x12" + bytes([32]) + samples.token.encode())
    untold = replace(samples.architecture, manifest={})
    draft = samples.draft(entity, graph, architecture=untold, artifacts={ONNX: graph})
    record = registry.publish(draft, key="graph")
    assert (record.artifacts, record.architecture) == (draft.artifacts, untold)
    assert registry.knowledge(record.id) == record
    # Who tells of no tensors keeps nobody from telling which they are.
    weights = vault.put(samples.weights())
    both = registry.publish(samples.draft(entity, weights, artifacts={WEIGHTS: weights, ONNX: graph}), key="both")
    assert dict(both.artifacts) == {WEIGHTS: weights, ONNX: graph}


def test_refuses_a_graph_that_is_none(registry, vault, samples, entity):
    graph = vault.put(b"no graph" + samples.token.encode())
    with pytest.raises(RequestRejectedError, match="no sound onnx"):
        registry.publish(samples.draft(entity, graph, artifacts={ONNX: graph}), key="graph")
