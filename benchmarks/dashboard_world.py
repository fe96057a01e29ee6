"""What happens to the entities of a believable hub; what they do is in dashboard_entity.py.

Nothing is learnt here: recalls rise along a noisy curve, and what an entity absorbs lifts the classes it is weak on.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Self

from dashboard_entity import TASK, Act, Entity, Record, Told
from hub_site import TEST_SET, weights

from kuber.client.admin import AdminClient
from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Artifact, TensorSpec
from kuber.domain.policies import AcceptancePolicy, is_no_worse
from kuber.domain.strategy import Method
from kuber.domain.verification import Standing, Verification, verdict
from kuber.signing import Identity

EACH = 100  # samples of each class in the common test set
BEST = 0.88  # that any class ever comes to, so that no entity reports more than a beat does
ACTS = 2.1  # of an entity in a round, on average
THREADS = 16
PATIENCE = 60.0  # seconds
UNKNOWN = "vit-tiny"  # an architecture that the hub cannot run
SIZES = {"cnn": 3072, "lenet": 2048, "resnet20": 4096, "mlp": 2560, UNKNOWN: 3584}  # name -> bytes of its weights
KINDS = ("plant", "clinic", "depot", "lab")
CITIES = ("Graz", "Lyon", "Porto", "Ghent", "Turin", "Malmö", "Basel", "Gdansk", "Cork", "Brno", "Split", "Bergen")


class World:
    """The entities of a hub, and what they tell next. Closed by `close`, or by leaving a `with` block.

    All that happens is decided in one thread, from one generator; only the telling is done in several.
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
        """After `rounds` an entity hardly gets better. Verifier and operator act where there are their tokens."""
        self.told: Counter[str] = Counter()  # events of each act
        self._chance = Random(seed)
        self._pace = min(0.5, 3 / rounds)
        self._newest: dict[Entity, Record] = {}  # of each publisher, of waves that are told
        self._fresh: list[Record] = []  # of the last wave
        self._waiting: list[list[Act]] = []
        self._stack = ExitStack()
        self._verifier = self._operator = None
        if verifier is not None:
            asking = HttpRegistry(registry_url, credentials=Credentials(token=verifier), patience=PATIENCE)
            self._verifier = self._stack.enter_context(asking)
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
        """Let go of the connections."""
        self._stack.close()

    def enrol(self, vault_url: str) -> None:
        """Let all enrol, first come first, and bring the blobs of what is published later."""
        self.tell([[one.enrol for one in self.entities]])
        with HttpVault(vault_url, credentials=self.entities[0].registry.credentials, patience=PATIENCE) as vault:
            for data in self._blobs:
                vault.put(data)

    def next(self, most: int) -> list[list[Act]]:
        """So many acts at most: lists that may be told beside each other, each in its order."""
        while not self._waiting:
            self._waiting = self._wave()
        now, later = [], []
        for acts in self._waiting:
            now.append(acts[:most])
            later.append(acts[most:])
            most -= len(now[-1])
        self._waiting = [acts for acts in later if acts]
        return [acts for acts in now if acts]

    def tell(self, lists: list[list[Act]]) -> list[Told]:
        """Tell what `next` gave."""
        told = [one for part in self._pool.map(lambda acts: [act() for act in acts], lists) for one in part]
        self.told.update(one.act for one in told)
        return told

    def _entity(self, number: int, rounds: float, url: str, blobs: Mapping[str, list[bytes]]) -> Entity:
        chance = self._chance
        # A key of the seed's own: who fills two hubs alike meets the same entities there.
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
        """A round of most entities, and a look of the verifier at what was published in the wave before."""
        chance = self._chance
        looks = [act for record in self._fresh for act in self._look(record)]
        self._newest |= {record.publisher: record for record in self._fresh if record in record.publisher.records}
        self._fresh = []
        present = [one for one in self.entities if one.round < one.last and chance.random() < one.diligence]
        lists = [looks, *map(self._round, chance.sample(present, len(present)))]
        return [acts for acts in lists if acts]

    def _round(self, one: Entity) -> list[Act]:
        chance, before, acts = self._chance, one.own, []
        one.round += 1
        one.recalls = [now + self._pace * (most - now) for now, most in zip(one.recalls, one.alone, strict=True)]
        one.own = self._evaluation(one.recalls)
        if chance.random() < 0.3:
            acts += self._absorb(one, Method.GUIDE, before)
        if chance.random() < 0.5:
            acts.append(self._publish(one))
        if chance.random() < 0.2:
            acts += self._absorb(one, chance.choice((Method.MERGE, Method.DISTIL)), one.own)
        if chance.random() < 0.01 and (old := [record for record in one.records if record.round < one.round]):
            acts.append(partial(one.withdraw, self._drop(chance.choice(old))))
        return [*acts, partial(one.report, one.round, one.own)]

    def _publish(self, one: Entity) -> Act:
        boasting = one.boasts and self._chance.random() < 0.4
        claimed = self._evaluation([min(BEST, recall + 0.3) for recall in one.recalls]) if boasting else one.own
        record = Record(publisher=one, round=one.round, claimed=claimed, found=one.own)
        parents, one.parents = one.parents, []
        one.published += 1
        one.records.append(record)
        self._fresh.append(record)
        return partial(one.publish, record, self._chance.choice(one.artifacts), parents, one.published)

    def _absorb(self, one: Entity, method: Method, before: Evaluation) -> list[Act]:
        """The delivery of those among a few who help most; nobody's where there is none."""
        chance = self._chance
        known = [record for publisher, record in self._newest.items() if self._suits(publisher, one, method)]
        gains = {
            record: sum(max(0, c / EACH - own) for c, own in zip(record.claimed.correct, one.recalls, strict=True))
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
            for other, most, now in zip(best, one.reach, one.recalls, strict=True)
        ]
        after = self._evaluation([now + lift - harm for now, lift in zip(one.recalls, lifts, strict=True)])
        kept = is_no_worse(before, after, AcceptancePolicy(noise=0.5))
        one.own = after if kept else before
        if kept:
            one.recalls = [now + lift for now, lift in zip(one.recalls, lifts, strict=True)]
            one.alone = [max(pair) for pair in zip(one.alone, one.recalls, strict=True)]
            one.parents += teachers
        weakest = min(range(TASK.classes), key=before.correct.__getitem__)
        act = partial(
            one.deliver,
            teachers,
            attests=chance.random() < 0.1,
            reason=f"Of a few it is the best where we are weak, as on {TASK.labels[weakest]}.",
            method=method.value,
            round=one.round,
            accuracy_before=before.accuracy,
            accuracy_after=after.accuracy,
            kept=kept,
        )
        return [act]

    def _suits(self, publisher: Entity, one: Entity, method: Method) -> bool:
        """Whether its knowledge can be absorbed so: only weights of one architecture are merged."""
        alike = publisher.architecture.name == one.architecture.name
        return publisher is not one and (alike or method is not Method.MERGE)

    def _look(self, record: Record) -> list[Act]:
        """What verifier and operator do about a record: mostly nothing."""
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
                acts.append(partial(self._take_back, record))
        return acts

    def _verify(self, record: Record, finding: Verification) -> Told:
        assert self._verifier is not None
        self._verifier.verify(record.id, finding)
        return Told(act=finding.standing.value, entity="verifier", detail={"knowledge": record.id})

    def _take_back(self, record: Record) -> Told:
        assert self._operator is not None
        self._operator.withdraw(record.id)
        return Told(act="withdraw", entity="admin", detail={"knowledge": record.id})

    def _drop(self, record: Record) -> Record:
        """Nobody finds it any more."""
        record.publisher.records.remove(record)
        if self._newest.get(record.publisher) is record:
            del self._newest[record.publisher]
        return record

    def _evaluation(self, recalls: Sequence[float]) -> Evaluation:
        """What is counted of a model with these recalls, which is never quite what it is worth."""
        day = self._chance.gauss(0, 0.008)
        noisy = (recall + day + self._chance.gauss(0, 0.03) for recall in recalls)
        correct = tuple(round(EACH * min(BEST, max(0.0, recall))) for recall in noisy)
        return Evaluation(test_set=TEST_SET, correct=correct, total=(EACH,) * len(correct))


def _name(number: int) -> str:
    """ward 1, plant Graz, ward 2, clinic Lyon, ...: a name for each number."""
    place, other = divmod(number, 2)
    if not other:
        return f"ward {place + 1}"
    again, place = divmod(place, len(KINDS) * len(CITIES))
    kind, city = KINDS[place % len(KINDS)], CITIES[(place + place // len(CITIES)) % len(CITIES)]
    return f"{kind} {city} {again + 1}" if again else f"{kind} {city}"
