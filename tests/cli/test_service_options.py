"""Options of the services."""

from datetime import timedelta

import pytest

from kuber.cli.service_options import parse_age
from kuber.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("2w", timedelta(weeks=2)),
        (None, None),
    ],
)
def test_ages_have_a_number_and_a_unit(text, age):
    assert parse_age("--keep-events", text) == age


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "-1d", "1.5d", "90 d", "9999999d", "90days", "٣d"])
def test_other_ages_are_refused(text):
    with pytest.raises(SettingsError, match=r"give a number and a unit, such as 90d"):
        parse_age("--keep-events", text)
