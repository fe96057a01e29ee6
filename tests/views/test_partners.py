"""What passed between one entity and each of the others."""

import pytest

from kuber.views.exchange import partners

from .test_hub import JOINED, delivery, entry, view_of


def test_gains_are_told_partner_by_partner_and_shared_among_teachers() -> None:
    view = view_of(
        *JOINED,
        entry(3, "b", "publish", "kb", round=1),
        entry(4, "c", "publish", "kc", round=1),
        entry(4, "a", "publish", "ka", round=1),
        delivery(5, "a", ["kb", "kc"], 0.2, 0.3, kept=True),
        delivery(6, "a", ["kb"], 0.3, 0.1, kept=False),
        delivery(7, "b", ["ka"], 0.5, 0.7, kept=True),
        delivery(8, "c", ["kb"], 0.1, 0.9, kept=True),
    )
    nine, other = partners(view, "a")
    assert (nine.name, nine.took, nine.gave, nine.undone) == ("9", 1, 1, 1)
    assert (nine.gained, nine.helped) == (pytest.approx(0.05), pytest.approx(0.2))
    assert (other.name, other.took, other.gave, other.undone) == ("x", 1, 0, 0)
    assert other.gained == pytest.approx(0.05)


def test_who_exchanged_nothing_has_no_partners() -> None:
    assert partners(view_of(*JOINED), "a") == []
