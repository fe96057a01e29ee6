"""A registry killed with kill -9 at each named point: whatever it acknowledged is stored and complete."""

import random
import signal
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kuber.client.consistency import compare
from kuber.client.credentials import Credentials
from kuber.client.record_signature import sign
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Artifact, Draft
from kuber.domain.query import Query, all_pages
from kuber.errors import ServiceError
from kuber.signing import Identity
from tests.fixtures.commands import KUBER
from tests.fixtures.hub import unused_port

from ..records import ARCHITECTURE, TASK, TEST_SET

KILLED = str(Path(__file__).parents[1] / "kill_points.py")
EVALUATION = Evaluation(test_set=TEST_SET, correct=(3, 4), total=(10, 10))


@dataclass
class Sites:
    """Addresses of a hub whose registry is killed and started again."""

    registry: str
    vault: str
    folder: Path


@pytest.fixture
def sites(start, tmp_path):
    registry = f"http://127.0.0.1:{unused_port()}"
    vault = start("vault", "--data", str(tmp_path / "vault"), "--registry", registry, "--collect-every", "0")
    return Sites(registry=registry, vault=vault.url, folder=tmp_path)


@pytest.fixture
def registry(start, sites):
    """Start the registry, to be killed at a point if there is one."""

    def run(*point):
        options = ["--data", str(sites.folder / "registry"), "--vault", sites.vault, "--open-enrolment"]
        options += ["--port", sites.registry.rpartition(":")[2]]
        return start("registry", *options, program=(KILLED, *point) if point else KUBER)

    return run


class Writer:
    """An entity that publishes, withdraws, records and attests until the registry is gone, and notes the answers."""

    def __init__(self, sites, safetensors, name):
        self.name = name
        self.safetensors = safetensors
        self.numbers = random.Random(name)
        self.identity = Identity.generate()
        credentials = Credentials(self.identity)
        self.registry = HttpRegistry(sites.registry, credentials=credentials, patience=0)
        self.vault = HttpVault(sites.vault, credentials=credentials)
        self.tried = {}  # key -> the draft last sent under it, and its blob, if that is sent with it
        self.published = {}  # key -> record
        self.withdrawn = set()
        self.deliveries = []
        self.attested = set()

    def close(self):
        self.registry.close()
        self.vault.close()

    def join(self):
        self.id = self.registry.register(self.name).id

    def draft(self, sequence):
        blob = self.safetensors(ARCHITECTURE.manifest, fill=self.numbers.randrange(64))
        together = sequence % 2
        made = Draft(
            entity=self.id,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: Artifact.of(blob) if together else self.vault.put(blob)},
            evaluation=EVALUATION,
            round=sequence,
            sequence=sequence,
        )
        return sign(made, self.identity, hub=self.registry.hub_id()), blob if together else None

    def work(self, others=(), acts=40):
        try:
            for act in range(1, acts + 1):
                key = f"{self.name}/{act}"
                self.tried[key] = self.draft(act)
                self.published[key] = publish(self.registry, *self.tried[key], key=key)
                if act % 3 == 0:
                    gone = self.published[f"{self.name}/{act - 1}"].id
                    self.registry.withdraw(gone)
                    self.withdrawn.add(gone)
                for teacher in others[:1]:
                    delivery = Delivery(
                        student=self.id,
                        teachers=(teacher,),
                        method="merge",
                        round=act,
                        accuracy_before=0.25,
                        accuracy_after=0.5,
                        kept=True,
                    )
                    self.registry.record(delivery, key=key)
                    self.deliveries.append(delivery)
                    self.registry.attest(teacher, entity=self.id, evaluation=EVALUATION)
                    self.attested.add(teacher)
        except ServiceError:
            pass


def publish(registry, draft, blob, *, key):
    if blob is None:
        return registry.publish(draft, key=key)
    record = registry.publish_with(draft, [blob], key=key)
    assert record is not None
    return record


def without_copy(record):
    """Return a record without the mark that it gets late, when the first uploader of the same file publishes."""
    return replace(record, copy_of=None)


def check(sites, operator, writers):
    """Compare the restarted registry with what the writers noted, and with the vault."""
    credentials = Credentials(token=operator)
    with (
        HttpRegistry(sites.registry, credentials=credentials) as registry,
        HttpVault(sites.vault, credentials=credentials) as vault,
    ):
        visible = list(all_pages(lambda cursor: registry.discover(Query(order="newest", limit=50, cursor=cursor))))
        deliveries = list(all_pages(lambda cursor: registry.deliveries(cursor=cursor)))
        assert len({record.id for record in visible}) == len(visible)
        for record in visible:
            artifact = record.artifacts[WEIGHTS]
            assert Digest.of(vault.get(artifact.digest)) == artifact.digest
            assert registry.knowledge(record.id) == record
        for writer in writers:
            own = [record for record in visible if record.entity == writer.id]
            for key, record in writer.published.items():
                assert without_copy(registry.knowledge(record.id)) == without_copy(record), key
                if record.id in writer.withdrawn:
                    assert record.id not in {visible.id for visible in own}
            assert len({record.sequence for record in own}) == len(own)
            for delivery in writer.deliveries:
                assert deliveries.count(delivery) == 1
            for teacher in writer.attested:
                assert writer.id in {attestation.entity for attestation in registry.attestations(teacher)}
        # A kill may leave a pin without a record, as a publication in progress does, but never a record without pins.
        later = datetime.now(UTC) + timedelta(hours=2)
        found = compare(registry, vault, now=later, repair=True)
        assert all("which is not a record" in fault.sentence for fault in found.faults), found.faults
        assert compare(registry, vault, now=later).faults == ()
    for writer in writers:
        with HttpRegistry(sites.registry, credentials=Credentials(writer.identity)) as again:
            again.register(writer.name)
            for key, sent in writer.tried.items():
                stored = publish(again, *sent, key=key)
                noted = writer.published.get(key, stored)
                assert without_copy(stored) == without_copy(noted), "the same act gives the same record"


POINTS = [
    (">pin", 9),
    ("<commit", 25),
    (">publication", 11),
    ("<unpin", 3),
    (">delivery", 6),
    pytest.param("<pin", 9, marks=pytest.mark.soak),
    pytest.param(">check", 7, marks=pytest.mark.soak),
    pytest.param(">commit", 25, marks=pytest.mark.soak),
    pytest.param(">withdrawal", 3, marks=pytest.mark.soak),
    pytest.param(">attestation", 5, marks=pytest.mark.soak),
    *[pytest.param(">commit", times, marks=pytest.mark.soak) for times in range(10, 40, 3)],
]


@pytest.mark.parametrize(("point", "times"), POINTS)
def test_killed_at_a_point(registry, sites, safetensors, point, times):
    service = registry(point, str(times))
    writer, teacher = Writer(sites, safetensors, "writer"), Writer(sites, safetensors, "teacher")
    for entity in (writer, teacher):
        entity.join()
    teacher.work(acts=1)
    writer.work([record.id for record in teacher.published.values()])
    assert service.process.wait() == -signal.SIGKILL
    registry()
    check(sites, (sites.folder / "registry" / "admin-token").read_text(), [writer, teacher])
    for entity in (writer, teacher):
        entity.close()


@pytest.mark.parametrize("lives", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_at_any_moment_while_several_write(registry, sites, safetensors, lives):
    moments = random.Random(11)
    writers = []
    for life in range(lives):
        service = registry()
        fresh = [Writer(sites, safetensors, f"{life}-{number}") for number in range(4)]
        for writer in fresh:
            writer.join()
        others = [record.id for writer in writers for record in writer.published.values()]
        threads = [threading.Thread(target=writer.work, args=(others, 10_000)) for writer in fresh]
        for thread in threads:
            thread.start()
        wanted = moments.randrange(20, 60)
        while sum(len(writer.published) for writer in fresh) < wanted:
            threads[0].join(0.01)
        service.process.kill()
        for thread in threads:
            thread.join()
        writers += fresh
    registry()
    check(sites, (sites.folder / "registry" / "admin-token").read_text(), writers)
    for writer in writers:
        writer.close()
