"""The tables of a comparison on a terminal, and without one."""

import io

import pytest
from rich.console import Console

from kuber.cli.compare_progress import comparison_lines, section_table
from tests.views.stored_results import COMPARISON


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_the_terminal_and_count_the_deployed_models(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, record=True)
    for section in COMPARISON.sections:
        console.print(section_table(section))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    titles = {section.title for section in COMPARISON.sections if len(section.title) <= width}
    assert titles <= set(map(str.rstrip, lines))  # each on one line, though it is wider than its table
    assert [line.split() for line in lines if line.startswith("kuber")][2] == ["kuber", "1", "0", "1"]


def test_without_a_terminal_the_deployed_models_are_lines() -> None:
    lines = comparison_lines(COMPARISON)
    place = lines.index("Deployed models, of all entities and seeds")
    assert [line.split() for line in lines[place + 2 : place + 4]] == [
        ["local", "1", "0", "1"],
        ["kuber", "1", "0", "1"],
    ]
