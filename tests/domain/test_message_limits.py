from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.message_limits import MAX_EVENT_BYTES, reported_counts


def test_a_report_on_too_many_classes_becomes_one_of_their_sums():
    def counts(classes):
        made = Evaluation(test_set=Digest.of(b"set"), correct=(50,) * classes, total=(100,) * classes)
        return reported_counts(made)

    assert counts(2) == {"correct": [50, 50], "total": [100, 100]}
    assert counts(MAX_EVENT_BYTES) == {"correct": [50 * MAX_EVENT_BYTES], "total": [100 * MAX_EVENT_BYTES]}
