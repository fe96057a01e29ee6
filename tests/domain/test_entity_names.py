"""Names of entities: one form, nothing invisible, none that looks like another."""

import unicodedata

import pytest

from kuber.domain.entity_names import normalised, skeletons
from kuber.errors import RequestRejectedError


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("clinic 1", "clinic 1"),
        ("  clinic 1 ", "clinic 1"),
        ("ｃｌｉｎｉｃ", "clinic"),
        (unicodedata.normalize("NFD", "Größe"), "Größe"),
        ("机器 ヒト", "机器 ヒト"),
        ("ﬁne", "fine"),
    ],
)
def test_a_name_is_kept_in_one_form(name, kept):
    assert normalised(name) == kept
    assert normalised(kept) == kept


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "\u3000",
        "\u2800",
        "\u3164",
        "a\u200bb",
        "a\u202eb",
        "a\u00adb",
        "a\ufe0f",
        "a\U000e0101",
        "a\nb",
        "\0",
        "\ud800",
        "\ue000",
        "x" * 201,
        "\ufdfa" * 20,
    ],
    ids=ascii,
)
def test_a_name_that_cannot_be_seen_is_refused(name):
    with pytest.raises(RequestRejectedError, match="printable characters that can be seen"):
        normalised(name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("alice", "Alice"),
        ("alice", "\u0430lice"),  # Cyrillic a
        ("alice", "al\u0456ce"),
        ("alice", "a1ice"),
        ("alice", "a|ice"),
        ("alice", "aIice"),
        ("Iris", "lris"),
        ("IRIS", "iris"),
        ("hospital", "\u0397ospital"),  # Greek Eta
        ("HOSPITAL", "\u041dOSPITAL"),  # Cyrillic En
        ("node", "n\u03bfde"),  # Greek omicron
        ("model", "rnodel"),
        ("clinic-1", "clinic\u20131"),
        ("clinic 1", "clinic  1"),
        ("one0", "oneO"),
        ("go", "\u0262o"),
        ("straße", "strasse"),
        ("alice", "alice\u0335"),
    ],
    ids=ascii,
)
def test_names_that_look_alike_have_a_skeleton_in_common(name, other):
    assert skeletons(name) & skeletons(other)


def test_other_names_have_none_in_common():
    names = [
        *map(str, range(200)),
        "a",
        "b",
        "site-i",
        "site-l",
        "site-j",
        "Größe",
        "Grösser",
        "机器",
        "ヒト",
        "север",
    ]
    seen: dict[str, str] = {}
    for name in names:
        for skeleton in skeletons(name):
            assert seen.setdefault(skeleton, name) == name
