"""The prior of a record in words."""

from dataclasses import replace

import pytest

from kuber.views.stated_prior import describe_prior
from tests.domain.samples import knowledge

OWN = "own, the class frequencies of its training samples"


@pytest.mark.parametrize(
    ("prior", "counts", "expected"),
    [
        (None, (3, 1), None),  # as in records of older versions
        ("uniform", None, "uniform, equal class frequencies"),
        ("own", (3, 1), OWN),
        ("own", None, f"{OWN}, which are not disclosed"),
    ],
)
def test_the_stated_prior_is_described(prior, counts, expected):
    record = replace(knowledge("a", 50, 60), prior=prior, class_counts=counts)
    assert describe_prior(record) == expected
