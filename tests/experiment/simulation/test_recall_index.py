"""Ranking by columns, held against sorting."""

from itertools import islice

import numpy as np
import pytest

from kuber.client.memory.latest import SortedRecallIndex
from kuber.experiment.simulation.recall_index import ColumnRecallIndex


@pytest.fixture(params=[3, 250, 2000])
def both(request):
    """The same records in columns and in the plain form; a third of them are gone, and their columns used again."""
    draw = np.random.default_rng(request.param)
    columns, plain = ColumnRecallIndex(), SortedRecallIndex()
    there: list[int] = []
    for place in range(request.param):
        # Few values, so that many rank alike; and not all tell of all classes.
        recalls = (draw.integers(0, 4, draw.integers(1, 5)) * 250_000).tolist()
        for one in (columns, plain):
            one.put(place, recalls)
        there.append(place)
        if place % 3 == 2:
            gone = there.pop(draw.integers(len(there)))
            for one in (columns, plain):
                one.drop(gone)
    return columns, plain


@pytest.mark.parametrize("classes", [(0,), (0, 1, 3), (2, 9), (9,)])
def test_columns_rank_as_sorting_does(both, classes):
    columns, plain = both
    told = list(plain.ranked(classes, None))
    assert list(columns.ranked(classes, None)) == told
    assert list(islice(columns.ranked(classes, None), 2)) == told[:2]


def test_columns_go_on_where_a_page_ended(both):
    columns, plain = both
    for after in ((-1_000_000, 1), (-750_000, 40), (-250_000, 0), (0, 10_000)):
        assert list(columns.ranked((0, 1), after)) == list(plain.ranked((0, 1), after))
