"""Mean recalls over several evaluations."""

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation, mean_recalls

SET = Digest.of(b"set")


def test_the_mean_is_over_models_with_samples() -> None:
    found = [
        Evaluation(test_set=SET, correct=(1, 0, 0), total=(4, 2, 0)),
        Evaluation(test_set=SET, correct=(3, 0, 0), total=(4, 0, 0)),
    ]
    assert mean_recalls(evaluation.recalls for evaluation in found) == [0.5, 0.0, None]
