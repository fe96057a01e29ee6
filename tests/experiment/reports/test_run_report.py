"""The report of a run: a self-contained page."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kuber.domain.event import Event
from kuber.experiment.reports.lineage_plot import lineage_plot
from kuber.experiment.reports.plots import accuracy_plot, partition_plot
from kuber.experiment.reports.run_report import headline, write_report
from kuber.settings import Settings
from kuber.views.exchange import exchanges
from kuber.views.formatting import points
from kuber.views.result import RunResult
from kuber.views.run import RunView

Tell = Callable[..., list[Event]]
End = Callable[..., tuple[RunResult, RunView]]
_VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Parse a page, and check that its tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}  # id of a section's heading -> the rows of its table
        self.section = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = str(dict(attrs)["aria-labelledby"])
        elif tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        elif tag in ("td", "th"):
            self.rows[self.section][-1].append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


LABELS = [f"class {number}" for number in range(10)]


def written(
    path: Path,
    result: RunResult,
    view: RunView,
    plots: dict[str, bytes] | None = None,
    labels: Sequence[str] = LABELS,
) -> str:
    plots = plots or {"accuracy": b"one picture", "partition": b"another", "lineage": b"a third"}
    settings = Settings(data_dir=Path("/my/<data>")).model_dump(mode="json")
    write_report(path, result, view, plots, settings, labels)
    return path.read_text(encoding="utf-8")


def test_it_is_self_contained(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result, view = sample
    counts = {name: entity.class_counts for name, entity in view.entities.items()}
    plots = {
        "accuracy": accuracy_plot(result, view),
        "own_accuracy": accuracy_plot(result, view, mixture="own mixture"),
        "partition": partition_plot(LABELS, counts),
        "lineage": lineage_plot(view),
    }
    html = written(tmp_path / "report.html", result, view, plots)
    page = Page(html)
    images = [str(image["src"]).removeprefix("data:image/png;base64,") for image in page.all("img")]
    assert [base64.b64decode(image) for image in images] == list(plots.values())
    assert "http:" not in html
    assert "https:" not in html
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.tags)


def test_it_is_accessible(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    html = written(tmp_path / "report.html", *sample)
    page = Page(html)
    assert all(image["alt"] for image in page.all("img"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_it_describes_the_run(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result, view = sample
    text = Page(written(tmp_path / "report.html", result, view)).text
    assert headline(result) in text
    for entity in result.entities:
        assert f"{entity.final_accuracy:.1%}" in text
    assert view.deliveries
    for delivery in view.deliveries:
        teacher = view.name_of(delivery.publishers[0])
        before, after = f"{delivery.before:.1%}", f"{delivery.after:.1%}"
        assert f"{delivery.round} entity {delivery.student} entity {teacher} distil {before} {after}" in text
    assert "learning_rate 0.01" in text
    assert "train_size not given" in text
    assert "reports true" in text


def test_teachers_and_students_are_a_grid(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result, view = sample
    header, *rows = Page(written(tmp_path / "report.html", result, view)).rows["taught"]
    assert header == ["Teacher", *view.entities]
    assert [cells[0] for cells in rows] == [f"entity {name}" for name in view.entities]
    assert sum(view.taught.values()) > 0
    for cells, teacher in zip(rows, view.entities, strict=True):
        assert cells[1:] == [str(view.taught[teacher, student] or "") for student in view.entities]


def test_teachers_and_students_are_a_list_if_they_are_many(tmp_path: Path, tell: Tell, end: End) -> None:
    result, view = end(tell(entities=21, rounds=3), rounds=3)
    page = Page(written(tmp_path / "report.html", result, view))
    listed = {(teacher, student): times for teacher, student, times in page.rows["taught"][1:]}
    assert listed == {
        (f"entity {teacher}", f"entity {student}"): str(n) for (teacher, student), n in view.taught.items()
    }
    assert f"Deliveries of {len(listed)} pairs" in page.text


def test_the_exchange_of_each_entity_is_listed(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result, view = sample
    header, *rows = Page(written(tmp_path / "report.html", result, view)).rows["exchange"]
    assert header == ["Entity", "Published", "Taught", "Kept", "Declined", "Gained", "Gave"]
    assert rows == [
        [
            exchange.entity,
            *map(str, (exchange.published, exchange.taught, exchange.kept, exchange.declined)),
            points(exchange.gained),
            points(exchange.gave),
        ]
        for exchange in exchanges(view)
    ]


class TestClasses:
    def test_each_entity_has_a_cell_for_each_class(self, tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
        result, view = sample
        first, second, *_ = view.entities.values()
        first.recalls = (0.0, 1.0, 0.126, *[0.5] * 7)
        first.class_counts = (3, 0, *[2] * 8)
        second.recalls = (None, *[0.5] * 9)
        html = written(tmp_path / "report.html", result, view)
        header, *rows, means = Page(html).rows["classes"]
        assert header == ["Entity", *LABELS]
        assert rows[0][:5] == ["0", "0", "100°", "13", "50"]
        assert rows[1][1] == "-"
        assert means[0] == "Mean"
        recalls = [entity.recalls[0] for entity in view.entities.values() if entity.recalls[0] is not None]
        assert means[1] == str(round(100 * sum(recalls) / 3))
        assert '<td style="--share: 0.13">13</td>' in html

    def test_more_than_20_are_left_out(self, tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
        page = Page(written(tmp_path / "report.html", *sample, labels=[str(number) for number in range(21)]))
        assert "Not shown for 21 classes; the limit is 20." in page.text
        assert "classes" not in page.rows

    def test_missing_evaluations_are_mentioned(self, tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
        result, view = sample
        for entity in view.entities.values():
            entity.recalls = ()
        assert "Unknown: the log has no evaluation" in Page(written(tmp_path / "x", result, view)).text

    def test_long_names_are_vertical(self, tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
        short = written(tmp_path / "report.html", *sample, labels=[str(number) for number in range(10)])
        assert 'class="upright"' not in short
        long = written(tmp_path / "report.html", *sample, labels=["a long name"] * 10)
        assert long.count('class="upright"') == 10


def test_the_reason_for_choosing_teachers_is_shown_if_known(tmp_path: Path, tell: Tell, end: End) -> None:
    events = tell()
    without = written(tmp_path / "report.html", *end(events))
    assert "why these teachers" not in without
    first = next(number for number, event in enumerate(events) if event.kind == "absorbed")
    events[first] = replace(events[first], detail={**events[first].detail, "reason": "Better on <7>."})
    html = written(tmp_path / "report.html", *end(events))
    rows = Page(html).rows["deliveries"]
    assert [row[1] for row in rows if len(row) == 2] == ["Better on <7>."]
    assert "Below a delivery: why these teachers were chosen." in html


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, tell: Tell, end: End) -> None:
    assert written(tmp_path / "a.html", *end(tell())) == written(tmp_path / "b.html", *end(tell()))


def test_text_of_others_is_escaped(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result = replace(sample[0], dataset="<script>alert(1)</script>")
    html = written(tmp_path / "report.html", result, sample[1])
    assert "<script" not in html
    assert "/my/&lt;data&gt;" in html


def test_a_run_without_exchange_says_so(tmp_path: Path, tell: Tell, end: End) -> None:
    text = Page(written(tmp_path / "report.html", *end(tell(strategy="local"), strategy="local"))).text
    assert "No entity absorbed knowledge" in text
    assert "There were no deliveries" in text
    assert "Four entities each learned alone for eight rounds" in text


def with_accuracies(result: RunResult, *, entities: int, rounds: int, start: float, final: float) -> RunResult:
    counts = {"published": 2, "absorbed": 0, "rejected": 0}
    own = {"own_accuracy": 0.6, "own_accuracies": (0.65, 0.6)}
    chosen = [
        replace(entity, start_accuracy=start, final_accuracy=final, **counts, **own)
        for entity in result.entities[:entities]
    ]
    chosen[0] = replace(chosen[0], absorbed=1)
    return replace(result, entities=tuple(chosen), rounds=rounds, mean_accuracy=final, own_accuracy=0.6)


@pytest.mark.parametrize(
    ("entities", "rounds", "start", "final", "expected"),
    [
        (
            4,
            8,
            0.271,
            0.384,
            "Four entities published eight models and absorbed one piece of knowledge in eight rounds; "
            "mean held-out accuracy: general rose from 27.1% to 38.4%, own is 60.0%.",
        ),
        (2, 3, 0.4001, 0.4, "mean held-out accuracy: general stayed at 40.0%, own is 60.0%."),
        (1, 1, 0.4, 0.4, "in one round; held-out accuracy: general is 40.0%, own is 60.0%."),
    ],
)
def test_the_headline_is_a_sentence_with_both_accuracies(
    sample: tuple[RunResult, RunView], entities: int, rounds: int, start: float, final: float, expected: str
) -> None:
    result = with_accuracies(sample[0], entities=entities, rounds=rounds, start=start, final=final)
    assert headline(result).endswith(expected)


def test_the_headline_of_an_older_result_has_one_accuracy(sample: tuple[RunResult, RunView]) -> None:
    result = with_accuracies(sample[0], entities=2, rounds=20, start=0.5, final=0.4)
    older = [replace(entity, own_accuracy=None, own_accuracies=()) for entity in result.entities]
    said = headline(replace(result, entities=tuple(older), own_accuracy=None))
    assert said.endswith("in 20 rounds; mean held-out accuracy fell from 50.0% to 40.0%.")


def test_it_names_the_deployed_models(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result, view = sample
    assert "Deployed models" not in written(tmp_path / "old.html", result, view)
    entities = [replace(entity, deployed="average") for entity in result.entities]
    html = written(tmp_path / "report.html", replace(result, entities=tuple(entities)), view)
    assert "Deployed models: 4 of an average of rounds.</figcaption>" in html
