"""What several evaluations say of each class."""

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation, mean_recalls

SET = Digest.of(b"set")


def test_the_mean_is_over_those_that_had_samples() -> None:
    found = [
        Evaluation(test_set=SET, correct=(1, 0, 0), total=(4, 2, 0)),
        Evaluation(test_set=SET, correct=(3, 0, 0), total=(4, 0, 0)),
    ]
    assert mean_recalls(evaluation.recalls for evaluation in found) == [0.5, 0.0, None]
