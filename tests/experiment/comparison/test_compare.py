"""`kuber compare` as a user starts it, to its end or until it is killed."""

import csv
import json
import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest

from kuber.cli.compare import parse_seeds
from kuber.domain.strategies import STRATEGIES
from kuber.errors import SettingsError
from kuber.experiment.comparison.compare import ComparisonTask, Plan, make_plan, open_comparison
from kuber.experiment.comparison.methods import BASELINES
from kuber.experiment.engines import fork_server
from kuber.settings import Settings
from tests.fixtures import commands
from tests.fixtures.commands import Command, called
from tests.fixtures.waiting import LIMIT

KILLED = str(Path(__file__).parents[2] / "services" / "kill_points.py")
METHODS = (*STRATEGIES, *BASELINES)
FLAGS = ["--dataset", "digits", "--architecture", "mlp", "--learning-rate", "0.1", "--batch-size", "16"]
FLAGS += ["--entities", "3", "--rounds", "3", "--local-epochs", "1", "--kd-epochs", "2"]
FLAGS += ["--learning-rate-schedule", "cosine"]


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KUBER_")}


def finished(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    done = commands.finished(*arguments, folder=cwd, environ=environ())
    return done.returncode, done.stdout, done.stderr


def numbers(result: dict) -> list[dict]:
    """Return the rows without their times."""
    rows = [dict(row) for row in result["rows"]]
    for row in rows:
        assert row.pop("wall_seconds") > 0
    return rows


@pytest.fixture(scope="module")
def compared(process: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Every method on two seeds."""
    cwd = tmp_path_factory.mktemp("compare")
    plan = ["--strategies", ",".join(METHODS), "--public-dataset", "digits", "--seeds", "2", *FLAGS]
    code, out, err = finished("compare", *plan, "--json", "--workers", "0", cwd=cwd)
    assert code == 0, err
    (folder,) = (cwd / "runs").iterdir()
    return folder, json.loads(out)


def test_every_method_has_a_row_for_every_seed(compared):
    _, result = compared
    places = [(row["strategy"], row["seed"]) for row in result["rows"] if "@" not in row["strategy"]]
    assert sorted(places) == sorted((name, seed) for name in METHODS for seed in (0, 1))
    required = {"mean_accuracy", "worst_accuracy", "own_accuracy", "absent_accuracy", "samples_trained"}
    required |= {"samples_forward", "bytes_up", "bytes_down", "wall_seconds", "strategy", "seed"}
    assert all(required <= row.keys() for row in result["rows"])
    assert result["settings"]["seeds"] == [0, 1]


def test_methods_with_more_compute_are_compared_with_a_longer_local(compared):
    _, result = compared
    rows = {(row["strategy"], row["seed"]): row for row in result["rows"]}
    costly = [place for place, row in rows.items() if row["compute"] > 1.01 * rows["local", place[1]]["compute"]]
    costly = [place for place in costly if "@" not in place[0]]
    assert costly
    for name, seed in costly:
        longer = rows[f"local@{name}", seed]
        assert longer["compute"] >= 0.999 * rows[name, seed]["compute"]
        # Its rates fall over its own rounds, which are more.
        assert longer["curve"][0] != rows["local", seed]["curve"][0]


def test_tables_and_plot_are_in_the_folder(compared):
    folder, result = compared
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == result
    with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["mean_accuracy"]) for line in lines] == [row["mean_accuracy"] for row in result["rows"]]
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "work").exists()


def test_the_oracle_costs_no_more_training_than_local(compared):
    _, result = compared
    rows = {(row["strategy"], row["seed"]): row for row in result["rows"]}
    assert rows["ensemble", 0]["samples_trained"] == rows["local", 0]["samples_trained"]


def test_without_a_terminal_there_are_plain_lines(compared, tmp_path):
    folder, result = compared
    code, out, err = finished("compare", "--resume", str(folder), "--workers", "0", cwd=folder.parent.parent)
    assert code == 0, err
    assert "\x1b" not in out + err
    assert "with public data" in out
    for row in result["rows"]:
        assert row["strategy"] in out


def test_a_killed_comparison_is_resumed_and_ends_with_the_same_numbers(compared, tmp_path):
    _, whole = compared
    arguments = [
        "--strategies",
        ",".join(METHODS),
        "--public-dataset",
        "digits",
        "--seeds",
        "2",
        *FLAGS,
    ]
    options = {"program": (KILLED, "halt>row of a comparison", "3"), "stdin": subprocess.PIPE}
    process = Command("compare", *arguments, folder=tmp_path, environ=environ(), **options)
    assert process.stdout.readline() == "halted\n", process.stderr.read()
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in family if psutil.pid_exists(pid)], timeout=LIMIT)
    assert not alive  # its workers ended with it
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "result.json").exists(), "it was done before it was killed"
    code, resumed, err = finished("compare", "--resume", str(folder), "--json", "--workers", "0", cwd=tmp_path)
    assert code == 0, err
    assert numbers(json.loads(resumed)) == numbers(whole)


def test_a_mistake_gets_one_sentence_and_nothing_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server, "warm_up", lambda: None)  # in the background, for what never begins
    monkeypatch.chdir(tmp_path)
    done = called("compare", "--strategies", "local,nonsense")
    code, out, err = done.returncode, done.stdout, done.stderr
    assert code == 2
    assert "There is no strategy 'nonsense'" in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("strategies", "seeds", "sentence"),
    [
        (["fedmd"], [0], "--public-dataset"),
        (["local"], [1, 1], "each seed only once"),
        (["local"], [], "at least one"),
    ],
)
def test_an_impossible_plan_is_refused(strategies, seeds, sentence):
    with pytest.raises(SettingsError, match=sentence):
        make_plan(Settings(), strategies, seeds)


def test_only_the_folder_of_a_comparison_is_resumed(tmp_path):
    with pytest.raises(SettingsError, match="not the folder of a"):
        open_comparison(None, tmp_path)
    (tmp_path / "settings.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SettingsError, match="not the folder of a comparison"):
        open_comparison(None, tmp_path)


def test_seeds_are_a_count_or_named():
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("11,12") == [11, 12]
    assert parse_seeds("7,") == [7]
    for wrong in ("0", "-1", "", "a", "1,-2", "4294967296,"):
        with pytest.raises(SettingsError):
            parse_seeds(wrong)


def test_local_is_always_compared():
    plan = make_plan(Settings(), ["vanilla", "vanilla"], [3])
    assert isinstance(plan, Plan)
    assert plan.strategies == ("local", "vanilla")


def test_a_task_is_named_by_its_label_and_seed():
    assert (
        len({ComparisonTask(label=label, method="local", seed=0, rounds=2) for label in ("local", "local@vanilla")})
        == 2
    )


def test_the_report_holds_every_figure_and_is_self_contained(compared):
    folder, result = compared
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|https?:|src=\"(?!data:)", html)
    assert html.count("<img ") == 1
    floor = {row["seed"]: row["accuracies"] for row in result["rows"] if row["strategy"] == "local"}
    for row in result["rows"]:
        cells = f'class="text">{row["strategy"]}</th><td>{row["seed"]}</td>'
        for accuracy, alone in zip(row["accuracies"], floor[row["seed"]], strict=True):
            cells += f'<td class="down">▼ {accuracy:.1%}</td>' if accuracy < alone else f"<td>{accuracy:.1%}</td>"
        assert f"{cells}<td>{row['mean_accuracy']:.1%}</td><td>{row['worst_accuracy']:.1%}</td>" in html
    for summary in result["summary"]:
        accuracy = summary["mean_accuracy"]
        spread = "" if accuracy["sd"] is None else f"±{100 * accuracy['sd']:.1f}"  # a longer `local` on one seed only
        assert f"{100 * accuracy['mean']:.1f}{spread}" in html
    assert "with public data" in html  # fedmd has tables of its own
