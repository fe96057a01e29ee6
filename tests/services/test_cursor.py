"""Cursors give back the position they were made from, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuber.errors import RequestRejectedError
from kuber.services import cursor


@given(st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_round_trip(accuracy, seq):
    assert cursor.decode(cursor.encode("accuracy", accuracy, seq), "accuracy", float, int) == [accuracy, seq]


@given(st.text())
def test_any_text_is_refused_cleanly(text):
    with pytest.raises(RequestRejectedError, match="The cursor is not one of this listing"):
        cursor.decode(text, "accuracy", float, int)


@pytest.mark.parametrize(
    "made",
    [
        cursor.encode("newest", 3),
        cursor.encode("accuracy", 1, 3),
        cursor.encode("accuracy", float("nan"), 3),
        cursor.encode("accuracy", 0.5, 2**63),
        cursor.encode("accuracy", 0.5, True),
        cursor.encode("accuracy", 0.5),
    ],
)
def test_a_cursor_of_another_listing_is_refused(made):
    with pytest.raises(RequestRejectedError):
        cursor.decode(made, "accuracy", float, int)
