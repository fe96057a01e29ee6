"""Scalars of an event log, and their export to TensorBoard and MLflow."""

import importlib
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest

import kuber
from kuber.cli import main
from kuber.entity.state.event_log import FILE_NAME, EventLog
from kuber.integrations import mlflow as metrics
from kuber.integrations import tensorboard as curves
from kuber.integrations.scalars import Scalar, Traffic, event_batches, scalars
from tests.fixtures.waiting import LIMIT, wait_until

START = datetime(2026, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.filterwarnings("ignore")


class Writer:
    """Write a log, with a second between events."""

    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        self.seconds = 0
        self.log = EventLog(folder / FILE_NAME, clock=self.clock)
        self.counts = {}

    def clock(self):
        self.seconds += 1
        return START + timedelta(seconds=self.seconds)

    def __call__(self, kind, entity="one", round=1, **detail):
        seq = self.counts[entity] = self.counts.get(entity, -1) + 1
        self.log.append(entity=entity, seq=seq, round=round, kind=kind, detail=detail)


@pytest.fixture
def run(tmp_path):
    """Folder of a run of two entities, and the writer of its log."""
    folder = tmp_path / "run"
    write = Writer(folder)
    yield folder, write
    write.log.close()


def write_run(write):
    write("run-started", None, 0, version="0", resumed=False)
    write("trained", samples=10, forward=0, loss=1.5, seconds=2.0)
    write("published", knowledge="k1", digest="d", bytes=100)
    write("trained", "two/2", samples=10, forward=0, loss=2.5, seconds=3.0)
    write("pulled", "two/2", knowledge="k1", publisher="p", accuracy=0.5, bytes=100)
    write("rejected", "two/2", knowledge="k9", reason="It is invalid.", bytes=7)
    absorbed = {"teachers": ["k1"], "publishers": ["p"], "method": "guide", "samples": 0, "forward": 0, "seconds": 0}
    write("absorbed", "two/2", before=0.25, after=0.5, kept=True, **absorbed)
    write("round-ended", accuracy=0.75, checkpoint=None)
    write("published", round=2, knowledge="k2", digest="d", bytes=50)
    write("round-ended", "two/2", accuracy=0.5, checkpoint=None)
    write("run-ended", None, 0, status="completed", message=None)


EXPECTED = [
    (2, "one", "loss", 1, 1.5),
    (2, "one", "seconds", 1, 2.0),
    (3, "one", "bytes_sent", 1, 100),
    (4, "two/2", "loss", 1, 2.5),
    (4, "two/2", "seconds", 1, 3.0),
    (5, "two/2", "bytes_received", 1, 100),
    (6, "two/2", "bytes_received", 1, 107),
    (7, "two/2", "gain", 1, 0.25),
    (8, "one", "accuracy", 1, 0.75),
    (9, "one", "bytes_sent", 2, 150),
    (10, "two/2", "accuracy", 1, 0.5),
]
SCALARS = [
    Scalar(time=START + timedelta(seconds=second), entity=entity, name=name, round=round, value=value)
    for second, entity, name, round, value in EXPECTED
]


def test_the_scalars_of_a_log(run):
    folder, write = run
    write_run(write)
    (events,) = event_batches(folder)
    assert list(scalars(events)) == SCALARS
    total = Traffic()
    assert [*scalars(events[:6], total), *scalars(events[6:], total)] == SCALARS


def test_a_log_is_followed_until_its_run_has_ended(run):
    folder, write = run
    write("run-started", None, 0, version="0", resumed=False)
    write("run-ended", None, 0, status="interrupted", message=None)
    write("run-started", None, 0, version="0", resumed=True)
    batches = event_batches(folder, follow=True, pause=0.0)
    assert len(next(batches)) == 3
    assert next(batches) == []
    write("round-ended", accuracy=0.75, checkpoint=None)
    assert len(next(batches)) == 1
    write("run-ended", None, 0, status="completed", message=None)
    assert [event.kind for event in next(batches)] == ["run-ended"]
    assert list(batches) == []


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values = []
    for part in sorted(folder.iterdir()):
        log = EventAccumulator(str(part)).Reload()
        for name in log.Tags()["scalars"]:
            values += [(part.name, name, item.step, item.value, item.wall_time) for item in log.Scalars(name)]
    return values


def test_tensorboard_reads_the_export(run, tmp_path):
    pytest.importorskip("tensorboard")
    folder, write = run
    write_run(write)
    assert curves.write(folder, tmp_path / "curves") == len(SCALARS)
    folders = {"one": "one", "two/2": "two%2F2"}
    expected = {(folders[s.entity], s.name, s.round, s.value, s.time.timestamp()) for s in SCALARS}
    found = read_back(tmp_path / "curves")
    assert len(found) == len(SCALARS)
    assert set(found) == expected
    with pytest.raises(kuber.errors.SettingsError, match="not empty"):
        curves.write(folder, tmp_path / "curves")


@pytest.mark.parametrize(
    ("entity", "name"), [("..", "%.."), (" ", "% "), ("a b.c-d_é", "a b.c-d_é"), ("a/b", "a%2Fb")]
)
def test_no_entity_name_leads_out_of_the_folder(entity, name):
    assert curves._folder(entity) == name


def test_a_long_name_of_an_entity_becomes_a_short_one():
    names = [curves._folder("ü" * 199 + end) for end in ("a", "b")]
    assert len(set(names)) == 2
    assert max(len(name.encode()) for name in names) < 150


def test_curves_are_written_while_a_run_is_active(run, tmp_path):
    pytest.importorskip("tensorboard")
    folder, write = run
    write("run-started", None, 0, version="0", resumed=False)
    counts = []
    thread = threading.Thread(
        target=lambda: counts.append(curves.write(folder, tmp_path / "curves", follow=True, pause=0.01))
    )
    thread.start()
    write("round-ended", accuracy=0.75, checkpoint=None)
    wait_until(
        lambda: (tmp_path / "curves" / "one").exists() and read_back(tmp_path / "curves"), "the first accuracy"
    )
    assert thread.is_alive()
    write("run-ended", None, 0, status="completed", message=None)
    thread.join(LIMIT)
    assert counts == [1]


@pytest.mark.process
def test_mlflow_reads_the_export(run, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    folder, write = run
    write_run(write)
    (folder / "settings.json").write_text(json.dumps({"num_rounds": 2, "strategy": "kuber"}))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with mock.patch.object(metrics, "MAX_METRICS", 2):
        assert metrics.write(folder, uri=uri, experiment="clouds") == len(SCALARS)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("clouds").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert set(runs) == {"one", "two/2"}
    found = set()
    for entity, run in runs.items():
        assert run.data.params == {"num_rounds": "2", "strategy": "kuber"}
        assert run.data.tags["kuber.run"] == "run"
        assert run.info.status == "FINISHED"
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            found |= {(item.timestamp, entity, name, item.step, item.value) for item in history}
    assert found == {(int(s.time.timestamp() * 1000), s.entity, s.name, s.round, s.value) for s in SCALARS}
    assert runs["one"].data.metrics["bytes_sent"] == 150


def command(*arguments, capsys):
    """Run `kuber export`; return its exit code and output."""
    with (
        mock.patch.object(sys, "argv", ["kuber", "export", *map(str, arguments)]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out + captured.err


@pytest.mark.process
def test_the_command_writes_either(run, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    folder, write = run
    write_run(write)
    code, output = command(folder, "--tensorboard", tmp_path / "curves", "--follow", capsys=capsys)
    assert (code, output) == (0, f"Exported {len(SCALARS)} values of {folder} to {tmp_path / 'curves'}.\n")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code, output = command(folder, "--mlflow", uri, "--experiment", "e", capsys=capsys)
    assert code == 0
    assert f"Exported {len(SCALARS)} values of {folder} to {uri}.\n" in output


@pytest.mark.process
def test_mistakes_are_errors_of_one_sentence(run, tmp_path, capsys):
    folder, write = run
    (tmp_path / "file").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / FILE_NAME).write_text("no event\n")
    write("round-ended")
    to = tmp_path / "curves"
    for arguments, words in (
        ((folder,), "--tensorboard DIR or --mlflow URI"),
        ((folder, "--tensorboard", to, "--mlflow", "x"), "either --tensorboard"),
        ((tmp_path, "--tensorboard", to), "not the folder of a run"),
        ((tmp_path / "bad", "--tensorboard", to), "has a line that is no event"),
        ((folder, "--tensorboard", to), "has not the fields in docs/events.md"),
        ((folder, "--tensorboard", tmp_path / "file"), "cannot be made"),
        ((folder, "--mlflow", "nonsense://x"), "MLflow at nonsense://x failed"),
        ((folder, "--mlflow", f"sqlite:///{tmp_path}/file/x.db"), "MLflow at sqlite"),
    ):
        code, output = command(*arguments, capsys=capsys)
        assert (code, output.count("error:"), "Traceback" in output) == (2, 1, False), output
        assert words in output


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_a_trainer_that_is_missing_is_named_with_its_extra(name):
    hidden = {name: None, f"{name}.pytorch": None}
    with mock.patch.dict(sys.modules, hidden):
        sys.modules.pop(f"kuber.integrations.{name}", None)
        with pytest.raises(ImportError, match=rf"pip install 'kuber\[{name}\]'"):
            importlib.import_module(f"kuber.integrations.{name}")


@pytest.mark.parametrize(
    ("missing", "option"),
    [("tensorboard", "--tensorboard"), ("torch.utils.tensorboard", "--tensorboard"), ("mlflow", "--mlflow")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(run, tmp_path, capsys, missing, option):
    folder, write = run
    write_run(write)
    hidden = {name: None for name in sys.modules if name == missing or name.startswith(f"{missing}.")}
    forgotten = {"torch.utils.tensorboard": None} if missing == "tensorboard" else {}
    with mock.patch.dict(sys.modules, hidden | forgotten | {missing: None}):
        code, output = command(folder, option, tmp_path / "to", capsys=capsys)
    assert code == 2
    assert f"pip install 'kuber[{option[2:]}]'" in output


def test_a_full_disk_is_a_sentence(run, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "flush", full)
    folder, write = run
    write_run(write)
    with pytest.raises(kuber.errors.SettingsError, match=r"cannot be written to .*No space left"):
        curves.write(folder, tmp_path / "curves")
