"""32 entities that publish at once, over HTTP, to a real registry and vault."""

import threading
from dataclasses import replace

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Draft
from kuber.domain.query import Query, all_pages
from kuber.errors import KUberError
from kuber.wire import record_bytes

from .records import ARCHITECTURE, TASK, TEST_SET

WRITERS, EACH = 32, 4


class Writer:
    """An entity with two threads that publish the same: one of each pair of requests comes second."""

    def __init__(self, registry, vault, safetensors, number):
        self.number = number
        self.safetensors = safetensors
        self.credentials = Credentials()
        self.registry = HttpRegistry(registry, credentials=self.credentials, patience=60)
        self.vault = HttpVault(vault, credentials=self.credentials, patience=60)
        self.answers = []
        self.errors = []

    def publish_all(self):
        try:
            self.id = self.registry.register(f"one-of-many-{self.number}").id
            for sequence in range(1, EACH + 1):
                draft = self.draft(sequence)
                twins = [threading.Thread(target=self._publish, args=(draft,)) for _ in range(2)]
                for twin in twins:
                    twin.start()
                for twin in twins:
                    twin.join()
        except KUberError as error:  # the test looks at it
            self.errors.append(error)

    def draft(self, sequence):
        # Many send the same bytes at the same moment.
        blob = self.safetensors(ARCHITECTURE.manifest, fill=sequence + self.number % 4)
        made = Draft(
            entity=self.id,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: self.vault.put(blob)},
            evaluation=Evaluation(test_set=TEST_SET, correct=(3, sequence), total=(10, 10)),
            round=sequence,
            sequence=sequence,
        )
        return replace(made, signature=self.credentials.identity.sign(record_bytes(made)))

    def _publish(self, draft):
        try:
            self.answers.append(self.registry.publish(draft, key=f"act {draft.sequence}"))
        except KUberError as error:
            self.errors.append(error)


@pytest.mark.parametrize("rounds", [1, pytest.param(30, marks=pytest.mark.soak)])
def test_what_many_publish_at_once_is_there_once(own_hub, safetensors, rounds):
    hub = own_hub("--open-enrolment", "--requests-per-minute", "0", keeping=("--requests-per-minute", "0"))
    for turn in range(rounds):
        names = range(turn * WRITERS, (turn + 1) * WRITERS)
        writers = [Writer(hub.registry, hub.vault, safetensors, number) for number in names]
        threads = [threading.Thread(target=writer.publish_all) for writer in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [writer.errors for writer in writers if writer.errors] == []
    operator = Credentials(token=hub.operator)
    with (
        HttpRegistry(hub.registry, credentials=operator) as registry,
        HttpVault(hub.vault, credentials=operator) as vault,
    ):
        seen = list(all_pages(lambda cursor: registry.discover(Query(order="newest", limit=37, cursor=cursor))))
        assert len({record.id for record in seen}) == len(seen) == rounds * WRITERS * EACH
        stored = {record.id: record for record in seen}
        for writer in writers:
            own = [record for record in reversed(seen) if record.entity == writer.id]
            assert [record.sequence for record in own] == list(range(1, EACH + 1))
            assert len(writer.answers) == 2 * EACH
            for answer in writer.answers:
                assert stored[answer.id] == answer
        for digest in {record.artifacts[WEIGHTS].digest for record in seen}:
            assert Digest.of(vault.get(digest)) == digest
        acts = [record.sequence for record in seen]
        assert acts.count(1) == rounds * WRITERS
    for writer in writers:
        writer.registry.close()
        writer.vault.close()
