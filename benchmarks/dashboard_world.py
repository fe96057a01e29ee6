"""The simulated course of the entities of a synthetic hub; their requests are in dashboard_entity.py.

Nothing is trained: recalls rise along a noisy curve, and absorbing raises those of an entity's weak classes.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Self

from dashboard_entity import TASK, Act, Entity, Record, SentEvent
from hub_site import TEST_SET, weights

from kuber.client.admin import AdminClient
from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.acceptance import AcceptancePolicy, is_no_worse
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Artifact, TensorSpec
from kuber.domain.strategy import Method
from kuber.domain.verification import Standing, Verification, verdict
from kuber.signing import Identity

EACH = 100  # samples of each class in the common test set
BEST = 0.88  # highest recall of a class, so that every entity reports less than a beat
ACTS = 2.1  # requests of an entity in a round, on average
THREADS = 16
PATIENCE = 60.0  # seconds
UNKNOWN = "vit-tiny"  # an architecture that the hub cannot run
SIZES = {"cnn": 3072, "lenet": 2048, "resnet20": 4096, "mlp": 2560, UNKNOWN: 3584}  # name -> bytes of its weights
KINDS = ("plant", "clinic", "depot", "lab")
CITIES = ("Graz", "Lyon", "Porto", "Ghent", "Turin", "Malmö", "Basel", "Gdansk", "Cork", "Brno", "Split", "Bergen")


class World:
    """The entities of a hub and their next requests; a context manager.

    Everything is decided in one thread, from one random generator; only requests are sent in several threads.
    """

    def __init__(
        self,
        registry_url: str,
        *,
        entities: int,
        rounds: float,
        seed: int,
        verifier: str | None,
        operator: str | None,
    ) -> None:
        """After `rounds`, entities hardly improve. Verifier and operator act if their tokens are given."""
        self.sent: Counter[str] = Counter()  # events of each act
        self._chance = Random(seed)
        self._pace = min(0.5, 3 / rounds)
        self._newest: dict[Entity, Record] = {}  # of each publisher, in earlier waves
        self._fresh: list[Record] = []  # of the last wave
        self._waiting: list[list[Act]] = []
        self._stack = ExitStack()
        self._verifier = self._operator = None
        if verifier is not None:
            client = HttpRegistry(registry_url, credentials=Credentials(token=verifier), patience=PATIENCE)
            self._verifier = self._stack.enter_context(client)
        if operator is not None:
            self._operator = self._stack.enter_context(AdminClient(registry_url, operator, patience=PATIENCE))
        blobs = {name: [weights(size, self._chance.randbytes) for _ in range(3)] for name, size in SIZES.items()}
        self.entities = [self._entity(number, rounds, registry_url, blobs) for number in range(entities)]
        self._pool = self._stack.enter_context(ThreadPoolExecutor(THREADS))
        self._blobs = [data for kind in blobs.values() for data in kind]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._stack.close()

    def enrol(self, vault_url: str) -> None:
        """Enrol all entities in order, and upload the blobs of later publications."""
        self.send([[entity.enrol for entity in self.entities]])
        with HttpVault(vault_url, credentials=self.entities[0].registry.credentials, patience=PATIENCE) as vault:
            for data in self._blobs:
                vault.put(data)

    def next(self, most: int) -> list[list[Act]]:
        """Return at most `most` acts, in lists that may be sent concurrently, each in its order."""
        while not self._waiting:
            self._waiting = self._wave()
        now, later = [], []
        for acts in self._waiting:
            now.append(acts[:most])
            later.append(acts[most:])
            most -= len(now[-1])
        self._waiting = [acts for acts in later if acts]
        return [acts for acts in now if acts]

    def send(self, lists: list[list[Act]]) -> list[SentEvent]:
        """Send the acts that `next` returned."""
        sent = [event for part in self._pool.map(lambda acts: [act() for act in acts], lists) for event in part]
        self.sent.update(event.act for event in sent)
        return sent

    def _entity(self, number: int, rounds: float, url: str, blobs: Mapping[str, list[bytes]]) -> Entity:
        chance = self._chance
        # The key depends on the seed: hubs with equal seeds have the same entities.
        me = Credentials(Identity(chance.randbytes(32)))
        kind = UNKNOWN if number % 20 == 9 else chance.choice([name for name in SIZES if name != UNKNOWN])
        manifest = {"w": TensorSpec(dtype="F32", shape=(SIZES[kind] // 4,))}
        weak = set(chance.sample(range(TASK.classes), chance.randint(2, 5)))
        top = chance.uniform(0.6, BEST)
        reach = [top * chance.uniform(0.75, 1) for _ in TASK.labels]
        counts = tuple(chance.randint(3, 60) if k in weak else chance.randint(200, 900) for k in range(TASK.classes))
        recalls = [0.1] * TASK.classes
        return Entity(
            name=_name(number),
            registry=self._stack.enter_context(HttpRegistry(url, credentials=me, patience=PATIENCE)),
            architecture=Architecture(name=kind, arguments={}, manifest=manifest),
            artifacts=tuple(Artifact.of(data) for data in blobs[kind]),
            diligence=chance.uniform(0.5, 1),
            last=rounds * chance.uniform(0.3, 0.7) if number % 20 == 11 else math.inf,
            boasts=number % 40 == 13,
            class_counts=counts if number % 3 else None,
            recalls=recalls,
            alone=[most * chance.uniform(0.2, 0.6) if k in weak else most for k, most in enumerate(reach)],
            reach=reach,
            own=self._evaluation(recalls),
        )

    def _wave(self) -> list[list[Act]]:
        """Return a round of most entities, and the verifier's acts on the publications of the wave before."""
        chance = self._chance
        judgements = [act for record in self._fresh for act in self._judge(record)]
        self._newest |= {record.publisher: record for record in self._fresh if record in record.publisher.records}
        self._fresh = []
        present = [e for e in self.entities if e.round < e.last and chance.random() < e.diligence]
        lists = [judgements, *map(self._round, chance.sample(present, len(present)))]
        return [acts for acts in lists if acts]

    def _round(self, entity: Entity) -> list[Act]:
        chance, before, acts = self._chance, entity.own, []
        entity.round += 1
        steps = zip(entity.recalls, entity.alone, strict=True)
        entity.recalls = [now + self._pace * (most - now) for now, most in steps]
        entity.own = self._evaluation(entity.recalls)
        if chance.random() < 0.3:
            acts += self._absorb(entity, Method.GUIDE, before)
        if chance.random() < 0.5:
            acts.append(self._publish(entity))
        if chance.random() < 0.2:
            acts += self._absorb(entity, chance.choice((Method.MERGE, Method.DISTIL)), entity.own)
        if chance.random() < 0.01 and (old := [record for record in entity.records if record.round < entity.round]):
            acts.append(partial(entity.withdraw, self._drop(chance.choice(old))))
        return [*acts, partial(entity.report, entity.round, entity.own)]

    def _publish(self, entity: Entity) -> Act:
        boasting = entity.boasts and self._chance.random() < 0.4
        claimed = self._evaluation([min(BEST, recall + 0.3) for recall in entity.recalls]) if boasting else entity.own
        record = Record(publisher=entity, round=entity.round, claimed=claimed, found=entity.own)
        parents, entity.parents = entity.parents, []
        entity.published += 1
        entity.records.append(record)
        self._fresh.append(record)
        return partial(entity.publish, record, self._chance.choice(entity.artifacts), parents, entity.published)

    def _absorb(self, entity: Entity, method: Method, before: Evaluation) -> list[Act]:
        """Return a delivery of the most helpful records among a few; nothing if there are none."""
        chance = self._chance
        known = [record for publisher, record in self._newest.items() if self._suits(publisher, entity, method)]
        gains = {
            record: sum(max(0, c / EACH - own) for c, own in zip(record.claimed.correct, entity.recalls, strict=True))
            for record in chance.sample(known, min(8, len(known)))
        }
        several = 1 if method is Method.DISTIL else chance.randint(1, 3)
        teachers = sorted(gains, key=gains.__getitem__, reverse=True)[:several]
        if not teachers:
            return []
        best = [max(counts) / EACH for counts in zip(*(record.found.correct for record in teachers), strict=True)]
        harm = chance.uniform(0.02, 0.09) if chance.random() < 0.2 else 0.0
        lifts = [
            0.3 * max(0.0, min(other, most) - now)
            for other, most, now in zip(best, entity.reach, entity.recalls, strict=True)
        ]
        after = self._evaluation([now + lift - harm for now, lift in zip(entity.recalls, lifts, strict=True)])
        kept = is_no_worse(before, after, AcceptancePolicy(noise=0.5))
        entity.own = after if kept else before
        if kept:
            entity.recalls = [now + lift for now, lift in zip(entity.recalls, lifts, strict=True)]
            entity.alone = [max(pair) for pair in zip(entity.alone, entity.recalls, strict=True)]
            entity.parents += teachers
        weakest = min(range(TASK.classes), key=before.correct.__getitem__)
        act = partial(
            entity.deliver,
            teachers,
            attests=chance.random() < 0.1,
            reason=f"It is the best of a few where we are weak, as on {TASK.labels[weakest]}.",
            method=method.value,
            round=entity.round,
            accuracy_before=before.accuracy,
            accuracy_after=after.accuracy,
            kept=kept,
        )
        return [act]

    def _suits(self, publisher: Entity, entity: Entity, method: Method) -> bool:
        """Whether an entity can absorb knowledge of this publisher: only weights of one architecture are merged."""
        alike = publisher.architecture.name == entity.architecture.name
        return publisher is not entity and (alike or method is not Method.MERGE)

    def _judge(self, record: Record) -> list[Act]:
        """Return what verifier and operator do about a record: mostly nothing."""
        honest = record.claimed is record.found
        if self._verifier is None or (honest and self._chance.random() > 0.1):
            return []
        finding = verdict(record.claimed, record.found)
        if record.publisher.architecture.name == UNKNOWN:
            finding = Verification(
                standing=Standing.UNVERIFIABLE, reason=f"There is no architecture {UNKNOWN!r} here."
            )
        acts = [partial(self._verify, record, finding)]
        if finding.standing is Standing.QUARANTINED:
            self._drop(record)
            if self._operator is not None and self._chance.random() < 0.3:
                acts.append(partial(self._withdraw, record))
        return acts

    def _verify(self, record: Record, finding: Verification) -> SentEvent:
        assert self._verifier is not None
        self._verifier.verify(record.id, finding)
        return SentEvent(act=finding.standing.value, entity="verifier", detail={"knowledge": record.id})

    def _withdraw(self, record: Record) -> SentEvent:
        assert self._operator is not None
        self._operator.withdraw(record.id)
        return SentEvent(act="withdraw", entity="admin", detail={"knowledge": record.id})

    def _drop(self, record: Record) -> Record:
        """Remove a record that is withdrawn or quarantined."""
        record.publisher.records.remove(record)
        if self._newest.get(record.publisher) is record:
            del self._newest[record.publisher]
        return record

    def _evaluation(self, recalls: Sequence[float]) -> Evaluation:
        """Return the evaluation of a model with these recalls, with noise."""
        day = self._chance.gauss(0, 0.008)
        noisy = (recall + day + self._chance.gauss(0, 0.03) for recall in recalls)
        correct = tuple(round(EACH * min(BEST, max(0.0, recall))) for recall in noisy)
        return Evaluation(test_set=TEST_SET, correct=correct, total=(EACH,) * len(correct))


def _name(number: int) -> str:
    """Return a name for each number: ward 1, plant Graz, ward 2, clinic Lyon, ..."""
    place, other = divmod(number, 2)
    if not other:
        return f"ward {place + 1}"
    again, place = divmod(place, len(KINDS) * len(CITIES))
    kind, city = KINDS[place % len(KINDS)], CITIES[(place + place // len(CITIES)) % len(CITIES)]
    return f"{kind} {city} {again + 1}" if again else f"{kind} {city}"
