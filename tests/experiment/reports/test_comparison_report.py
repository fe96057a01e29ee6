"""The report of a comparison: both accuracies of every entity, and results of earlier versions."""

from dataclasses import replace
from pathlib import Path

from kuber.experiment.reports.comparison_report import write_comparison_report
from kuber.views.comparison import ComparisonResult
from tests.views.stored_results import COMPARISON

ON_ALL, ON_OWN = "on the mixture of all.", "on its own mixture of classes."


def written(path: Path, result: ComparisonResult) -> str:
    write_comparison_report(path, result, b"a picture")
    return path.read_text(encoding="utf-8")


def test_every_entity_has_both_accuracies(tmp_path: Path) -> None:
    html = written(tmp_path / "report.html", COMPARISON)
    assert (html.count(ON_ALL), html.count(ON_OWN)) == (1, 1)
    assert "general (own): local 30.0% (50.0%), kuber 45.0% (50.0%)" in html


def test_the_deployed_model_of_every_entity_is_named(tmp_path: Path) -> None:
    local, kuber = COMPARISON.rows
    rows = (local, replace(kuber, deployed=("best", None)))
    html = written(tmp_path / "report.html", replace(COMPARISON, rows=rows))
    assert "<td>0</td><td>last</td><td>average</td></tr>" in html
    assert "<td>0</td><td>best</td><td>-</td></tr>" in html
    assert '<th scope="row" class="text">kuber</th><td>0</td><td>1</td><td>0</td></tr>' in html  # the sums


def test_rows_of_earlier_versions_name_no_models(tmp_path: Path) -> None:
    older = tuple(replace(row, deployed=()) for row in COMPARISON.rows)
    html = written(tmp_path / "report.html", replace(COMPARISON, rows=older))
    assert "Deployed model of each entity" not in html


def test_rows_of_earlier_versions_have_no_own_accuracies(tmp_path: Path) -> None:
    new, *_ = COMPARISON.rows
    older = replace(new, strategy="kuber", own_accuracy=None, own_accuracies=())
    html = written(tmp_path / "report.html", replace(COMPARISON, rows=(new, older)))
    assert (html.count(ON_ALL), html.count(ON_OWN)) == (1, 0)
