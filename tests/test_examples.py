"""Every example is one short file, and runs in a tiny configuration."""

import os
import re
from pathlib import Path

import pytest

from tests.fixtures.commands import LEARNING, finished
from tests.fixtures.hub import running_hub

EXAMPLES = Path(__file__).parents[1] / "examples"
LINES = 150
TINY = {
    "forests_learn": ["--seeds", "1", "--trees", "10", "--rounds", "1"],
    "mixed_architectures": ["--seeds", "1", "--rounds", "1"],
    "sklearn_teaches_torch": ["--seeds", "1", "--trees", "10", "--epochs", "5"],
    "tabular_hospitals": ["--seeds", "1", "--rounds", "1"],
    "text_topics": ["--seeds", "1", "--rounds", "1"],
}
ELSEWHERE = {"own_loop", "custom_strategy"}  # tested separately, below


def run(command, folder):
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    done = finished(program=[*map(str, command)], folder=folder, environ=environ, preload=LEARNING)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TINY.keys() | ELSEWHERE


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_one_short_file(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


@pytest.mark.parametrize("name", TINY)
@pytest.mark.process
def test_an_example_runs(name, tmp_path):
    output = run([EXAMPLES / f"{name}.py", *TINY[name]], tmp_path)
    assert re.search(r"seed 0.*\d%", output)


@pytest.mark.process
def test_the_first_example_joins_a_running_hub(tmp_path):
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub", "--open-enrolment") as hub:
        text = (EXAMPLES / "own_loop.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 40
        assert "http://127.0.0.1:5001" in text
        moved = text.replace('hub="http://127.0.0.1:5001"', f'hub="{hub.registry}"')
        moved = moved.replace(", hub=hub)", f', hub=hub, vault="{hub.vault}")')
        (tmp_path / "own_loop.py").write_text(moved, encoding="utf-8")
        output = run([tmp_path / "own_loop.py", "digits"], tmp_path)
    assert len(re.findall(r"seed \d: .*% alone, .*% with KUber", output)) == 3


@pytest.mark.process
def test_a_custom_strategy_in_a_file_is_compared(tmp_path):
    settings = ["--dataset", "digits", "--architecture", "mlp", "--num-rounds", "2", "--local-epochs", "1"]
    command = ["-m", "kuber", "compare", "--strategies", "local,custom_strategy:Elitist", "--seeds", "1"]
    command += ["--workers", "0"]
    output = run([*command, "--runs-dir", tmp_path, *settings], EXAMPLES)
    assert "elitist" in output.lower()
