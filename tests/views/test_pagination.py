"""Pages of a table."""

import pytest

from kuber.views.pagination import paginate


@pytest.mark.parametrize(
    ("wanted", "page", "rows"),
    [(1, 1, 25), (3, 3, 10), (99, 3, 10), (0, 1, 25)],
    ids=["first", "last", "beyond", "0"],
)
def test_a_page_that_does_not_exist_is_the_nearest_one(wanted: int, page: int, rows: int) -> None:
    found = paginate(range(60), page=wanted, size=25)
    assert (found.page, found.pages, found.total, len(found.rows)) == (page, 3, 60, rows)
    assert found.rows[0] == 25 * (page - 1)


def test_an_empty_table_has_one_empty_page() -> None:
    found = paginate([], page=1, size=25)
    assert (found.rows, found.page, found.pages, found.total) == ((), 1, 1, 0)
