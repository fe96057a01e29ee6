"""The result of a run on a terminal, and without one."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from kuber.cli.result_table import groups_table, result_table, summary_lines
from kuber.views.result import EntityResult, RunResult


@pytest.fixture
def result() -> RunResult:
    entities = [
        EntityResult(
            entity=str(number),
            final_accuracy=final,
            start_accuracy=0.25,
            gain=final - 0.25,
            accuracies=(0.25, final),
            samples=2000,
            published=5,
            absorbed=2,
            rejected=0,
            bytes_up=2_000_000,
            bytes_down=0,
            own_accuracy=final + 0.4,
            own_accuracies=(0.5, final + 0.4),
        )
        for number, final in enumerate((0.384, 0.2))
    ]
    return RunResult(
        run_dir="runs/x",
        strategy="vanilla",
        seed=0,
        dataset="cifar10",
        architecture="cnn",
        rounds=2,
        device="cpu",
        precision="float32",
        entities=tuple(entities),
        mean_accuracy=0.292,
        worst_accuracy=0.2,
        wall_seconds=75.0,
        samples_trained=8000,
        samples_forward=4000,
        own_accuracy=0.692,
    )


def test_the_result_table_fits_80_columns(result: RunResult) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True, record=True)
    console.print(result_table(result))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^ *0 +38\.4% +\+13\.4 +78\.4% +5 +2 +2\.0 MB +0 B", text, re.MULTILINE)
    assert re.search(r"^ *mean +29\.2% +\+4\.2 +69\.2%", text, re.MULTILINE)
    assert re.search(r"^ *worst +20\.0% +60\.0%", text, re.MULTILINE)
    assert "Run time: 1:15." in text


def test_the_groups_of_a_world_fit_80_columns_and_have_lines(result: RunResult) -> None:
    assert groups_table(result) is None
    groups = ("usual", "a group of entities with a name that is longer than most names that anybody would give")
    entities = [
        replace(entity, group=group, ends=(3.0, 1234.56))
        for entity, group in zip(result.entities, groups, strict=True)
    ]
    result = replace(result, entities=tuple(entities))
    console = Console(width=80, file=io.StringIO(), force_terminal=True, record=True)
    console.print(groups_table(result))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"usual +1 +1 +2\.0 +38\.4% +38\.4% +78\.4% +1,234\.6 s", text)
    lines = summary_lines(result)
    assert lines[-2].split() == ["usual", "1", "1", "2.0", "38.4%", "38.4%", "78.4%", "1,234.6", "s"]


def test_summary_lines_are_plain_and_aligned(result: RunResult) -> None:
    assert summary_lines(result) == [
        "entity  general   gain    own  published  absorbed    sent  received",
        "0         38.4%  +13.4  78.4%          5         2  2.0 MB       0 B",
        "1         20.0%   -5.0  60.0%          5         2  2.0 MB       0 B",
        "mean      29.2%   +4.2  69.2%",
        "worst     20.0%         60.0%",
    ]
    assert all(line.isascii() for line in summary_lines(result))
