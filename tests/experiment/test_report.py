"""The report: one page that says what happened and needs nothing beside it."""

import base64
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kuber.domain.event import Event
from kuber.experiment.lineage import lineage_plot
from kuber.experiment.plots import accuracy_plot, partition_plot
from kuber.experiment.report import headline, write_report
from kuber.settings import Settings
from kuber.views import RunResult, RunView

Tell = Callable[..., list[Event]]
End = Callable[..., tuple[RunResult, RunView]]
_VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Collects what a page is made of, and checks that its tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def written(path: Path, result: RunResult, view: RunView, plots: dict[str, bytes] | None = None) -> str:
    plots = plots or {"accuracy": b"one picture", "partition": b"another", "lineage": b"a third"}
    write_report(path, result, view, plots, Settings(data_dir=Path("/my/<data>")).model_dump(mode="json"))
    return path.read_text(encoding="utf-8")


def test_it_needs_nothing_beside_it(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result, view = sample
    counts = {name: entity.class_counts for name, entity in view.entities.items()}
    labels = [f"class {number}" for number in range(10)]
    plots = {
        "accuracy": accuracy_plot(result, view),
        "partition": partition_plot(labels, counts),
        "lineage": lineage_plot(view),
    }
    html = written(tmp_path / "report.html", result, view, plots)
    page = Page(html)
    images = [str(image["src"]).removeprefix("data:image/png;base64,") for image in page.all("img")]
    assert [base64.b64decode(image) for image in images] == list(plots.values())
    assert "http:" not in html
    assert "https:" not in html
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.tags)


def test_it_is_written_for_every_reader(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    html = written(tmp_path / "report.html", *sample)
    page = Page(html)
    assert all(image["alt"] for image in page.all("img"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_it_tells_what_happened(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
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
    for (teacher, student), times in view.taught.items():
        assert f"entity {teacher} entity {student} {times}" in text
    assert "learning_rate 0.01" in text
    assert "train_size not given" in text


def test_what_others_wrote_is_escaped(tmp_path: Path, sample: tuple[RunResult, RunView]) -> None:
    result = replace(sample[0], dataset="<script>alert(1)</script>")
    html = written(tmp_path / "report.html", result, sample[1])
    assert "<script" not in html
    assert "/my/&lt;data&gt;" in html


def test_nothing_shared_is_said_so(tmp_path: Path, tell: Tell, end: End) -> None:
    text = Page(written(tmp_path / "report.html", *end(tell(strategy="local"), strategy="local"))).text
    assert "Nobody: no entity absorbed knowledge" in text
    assert "None: no entity absorbed knowledge" in text
    assert "Four entities each learnt alone for eight rounds" in text


def with_accuracies(result: RunResult, *, entities: int, rounds: int, start: float, final: float) -> RunResult:
    chosen = [
        replace(entity, start_accuracy=start, final_accuracy=final, published=2, absorbed=0, rejected=0)
        for entity in result.entities[:entities]
    ]
    chosen[0] = replace(chosen[0], absorbed=1)
    return replace(result, entities=tuple(chosen), rounds=rounds, mean_accuracy=final)


@pytest.mark.parametrize(
    ("entities", "rounds", "start", "final", "expected"),
    [
        (
            4,
            8,
            0.271,
            0.384,
            "Four entities published eight models and absorbed one piece of knowledge in eight rounds; "
            "mean held-out accuracy rose from 27.1% to 38.4%.",
        ),
        (2, 20, 0.5, 0.4, "in 20 rounds; mean held-out accuracy fell from 50.0% to 40.0%."),
        (2, 3, 0.4001, 0.4, "in three rounds; mean held-out accuracy stayed at 40.0%."),
        (1, 1, 0.4, 0.4, "in one round; held-out accuracy is 40.0%."),
    ],
)
def test_the_headline_says_it_in_a_sentence(
    sample: tuple[RunResult, RunView], entities: int, rounds: int, start: float, final: float, expected: str
) -> None:
    result = with_accuracies(sample[0], entities=entities, rounds=rounds, start=start, final=final)
    assert headline(result).endswith(expected)
