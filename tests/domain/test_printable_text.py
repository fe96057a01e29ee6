"""Text of others is shown, not obeyed."""

import logging

import pytest

from kuber.domain.printable_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 机器 é", "Größe 机器 é"),
        ("\x1b[2J\x07\0", r"\x1b[2J\x07\x00"),
        ("one\r\ntwo\ttab", r"one\r\ntwo\ttab"),
        ("\u202eright\u2066", r"\u202eright\u2066"),
        ("\x9b31m\u2028\ufeff", r"\x9b31m\u2028\ufeff"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_not_printable_becomes_an_escape(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_no_warning_of_kuber_holds_a_control_character(caplog):
    logging.getLogger("kuber").warning("Entity %r: %s", "a", "Fine\x1b[2J\r\nroot: all is well \u202e")
    (record,) = caplog.records
    assert record.getMessage() == r"Entity 'a': Fine\x1b[2J\r\nroot: all is well \u202e"
