"""Numbers in the text of others."""

import pytest

from kuber.domain.whole_numbers import HUGE, read_digits


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        (b"12", 12),
        ("9" * 18, HUGE - 1),
        ("9" * 19, HUGE),
        ("9" * 10_000, HUGE),
        *((text, None) for text in ("", "-1", "+1", "1.0", " 1", "²", "٣", "x", b"1_0")),
    ],
)
def test_only_decimal_digits_are_a_number_however_many(text, number):
    assert read_digits(text) == number
