"""Cursors: decoding returns the encoded position, and refuses everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuber.errors import RequestRejectedError
from kuber.services.http import pagination


@given(st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_round_trip(accuracy, seq):
    assert pagination.decode(pagination.encode("accuracy", accuracy, seq), "accuracy", float, int) == [accuracy, seq]


@given(st.text())
def test_any_text_is_refused_cleanly(text):
    with pytest.raises(RequestRejectedError, match="The cursor is not one of this listing"):
        pagination.decode(text, "accuracy", float, int)


@pytest.mark.parametrize(
    "cursor",
    [
        pagination.encode("newest", 3),
        pagination.encode("accuracy", 1, 3),
        pagination.encode("accuracy", float("nan"), 3),
        pagination.encode("accuracy", 0.5, 2**63),
        pagination.encode("accuracy", 0.5, True),
        pagination.encode("accuracy", 0.5),
    ],
)
def test_a_cursor_of_another_listing_is_refused(cursor):
    with pytest.raises(RequestRejectedError):
        pagination.decode(cursor, "accuracy", float, int)
