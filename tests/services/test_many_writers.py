"""32 entities that publish at the same time, over HTTP, to a running registry and vault."""

import threading
from dataclasses import replace

import pytest

from kuber.client.credentials import Credentials
from kuber.client.record_signature import sign
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Draft
from kuber.domain.query import Query, all_pages
from kuber.errors import KUberError

from .records import ARCHITECTURE, TASK, TEST_SET

WRITERS, RECORDS = 32, 4


class Writer:
    """Entity with two threads that publish the same records, so that each request is sent twice."""

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
            self.id = self.registry.register(f"writer-{self.number}").id
            for sequence in range(1, RECORDS + 1):
                draft = self.draft(sequence)
                twins = [threading.Thread(target=self._publish, args=(draft,)) for _ in range(2)]
                for twin in twins:
                    twin.start()
                for twin in twins:
                    twin.join()
        except KUberError as error:  # checked by the test
            self.errors.append(error)

    def draft(self, sequence):
        # Several entities send the same bytes at the same time.
        blob = self.safetensors(ARCHITECTURE.manifest, fill=sequence + self.number % 4)
        draft = Draft(
            entity=self.id,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: self.vault.put(blob)},
            evaluation=Evaluation(test_set=TEST_SET, correct=(3, sequence), total=(10, 10)),
            round=sequence,
            sequence=sequence,
        )
        return sign(draft, self.credentials.identity, hub=self.registry.hub_id())

    def _publish(self, draft):
        try:
            self.answers.append(self.registry.publish(draft, key=f"act {draft.sequence}"))
        except KUberError as error:
            self.errors.append(error)


@pytest.mark.parametrize("rounds", [1, pytest.param(30, marks=pytest.mark.soak)])
def test_records_published_at_the_same_time_are_stored_once(own_hub, safetensors, rounds):
    hub = own_hub("--open-enrolment", "--requests-per-minute", "0", keeping=("--requests-per-minute", "0"))
    for repetition in range(rounds):
        numbers = range(repetition * WRITERS, (repetition + 1) * WRITERS)
        writers = [Writer(hub.registry, hub.vault, safetensors, number) for number in numbers]
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
        found = list(all_pages(lambda cursor: registry.discover(Query(order="newest", limit=37, cursor=cursor))))
        assert len({record.id for record in found}) == len(found) == rounds * WRITERS * RECORDS
        stored = {record.id: record for record in found}
        for writer in writers:
            own = [record for record in reversed(found) if record.entity == writer.id]
            assert [record.sequence for record in own] == list(range(1, RECORDS + 1))
            assert len(writer.answers) == 2 * RECORDS
            for answer in writer.answers:
                # The owner of a file may publish it after others have, and then it is their record that is the copy.
                assert replace(stored[answer.id], copy_of=None) == replace(answer, copy_of=None)
        for digest in {record.artifacts[WEIGHTS].digest for record in found}:
            assert Digest.of(vault.get(digest)) == digest
        sequences = [record.sequence for record in found]
        assert sequences.count(1) == rounds * WRITERS
    for writer in writers:
        writer.registry.close()
        writer.vault.close()
