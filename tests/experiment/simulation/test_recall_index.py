"""Ranking by columns gives the order of sorting."""

from itertools import islice

import numpy as np
import pytest

from kuber.client.memory.latest import SortedRecallIndex
from kuber.experiment.simulation.recall_index import ColumnRecallIndex


@pytest.fixture(params=[3, 250, 2000])
def both(request):
    """The same records in both indexes; a third of them are dropped, and their columns used again."""
    draw = np.random.default_rng(request.param)
    columns, plain = ColumnRecallIndex(), SortedRecallIndex()
    present: list[int] = []
    for place in range(request.param):
        # Few values, so that many ranks are equal; some recalls lack the last classes.
        recalls = (draw.integers(0, 4, draw.integers(1, 5)) * 250_000).tolist()
        for index in (columns, plain):
            index.put(place, recalls)
        present.append(place)
        if place % 3 == 2:
            dropped = present.pop(draw.integers(len(present)))
            for index in (columns, plain):
                index.drop(dropped)
    return columns, plain


@pytest.mark.parametrize("classes", [(0,), (0, 1, 3), (2, 9), (9,)])
def test_columns_rank_like_sorting(both, classes):
    columns, plain = both
    expected = list(plain.ranked(classes, None))
    assert list(columns.ranked(classes, None)) == expected
    assert list(islice(columns.ranked(classes, None), 2)) == expected[:2]


def test_columns_continue_after_a_page(both):
    columns, plain = both
    for after in ((-1_000_000, 1), (-750_000, 40), (-250_000, 0), (0, 10_000)):
        assert list(columns.ranked((0, 1), after)) == list(plain.ranked((0, 1), after))
