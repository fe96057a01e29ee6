"""`kuber run` as a user starts it: a process of its own, real services, to its end or until it is killed."""

import json
import os
import re
import signal
import socket
import sqlite3
from pathlib import Path

import psutil
import pytest

from kuber.domain.digest import Digest
from kuber.entity.state.checkpoint import round_path
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.experiment.engines import fork_server
from tests.fixtures.commands import KUBER, Command, called
from tests.fixtures.waiting import wait_until

# Digits by a small network: seconds of work, and entities that improve, degrade and absorb.
QUICK = ["--dataset", "digits", "--architecture", "mlp", "--learning-rate", "0.1", "--batch-size", "16"]
QUICK += ["--num-rounds", "5", "--local-epochs", "2"]


KILLED = str(Path(__file__).parents[2] / "services" / "kill_points.py")


def kuber(*arguments: str, folder: Path, at: tuple[str, str] | None = None) -> Command:
    """Start a command; with `at`, it is killed or interrupted at a point: see kill_points.py."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KUBER_")}
    program = (KILLED, *at) if at else KUBER
    return Command(*arguments, folder=folder, environ=environ, program=program, new_session=True)


def finished(*arguments: str, folder: Path) -> tuple[int, str, str]:
    process = kuber(*arguments, folder=folder)
    out, err = process.communicate()
    return process.wait(), out, err


def processes_of(session: int) -> list[psutil.Process]:
    """Return the processes in the session of a run."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def services_in(folder: Path) -> list[psutil.Process]:
    """Return the services whose data are in this folder; they have sessions of their own."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or [])
    ]


def assert_nothing_is_left(session: int, folder: Path) -> None:
    """No process of the run is left; the fork server may take a moment to notice that the run has ended."""
    wait_until(lambda: not processes_of(session) and not services_in(folder), "all processes to end")


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.fixture(scope="module")
def complete(process, tmp_path_factory):
    """A complete run: (result object, run folder, standard error)."""
    folder = tmp_path_factory.mktemp("complete")
    process = kuber("run", *QUICK, "--strategy", "vanilla", "--json", folder=folder)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert_nothing_is_left(process.pid, folder)
    return json.loads(out), only_run(folder), err


def test_json_is_the_result_alone_and_is_kept_in_the_run_folder(complete):
    result, run, _ = complete
    assert result == json.loads((run / "result.json").read_text())
    assert {
        "run_dir",
        "strategy",
        "seed",
        "entities",
        "mean_accuracy",
        "worst_accuracy",
        "wall_seconds",
        "samples_trained",
        "samples_forward",
    } <= set(result)
    assert [entity["entity"] for entity in result["entities"]] == ["0", "1", "2", "3"]
    finals = [entity["final_accuracy"] for entity in result["entities"]]
    assert result["mean_accuracy"] == pytest.approx(sum(finals) / 4)
    assert result["worst_accuracy"] == min(finals)
    assert Path(result["run_dir"]) == run


def test_the_final_accuracies_are_those_of_the_checkpoints_on_the_held_out_test_set(complete):
    import torch

    from kuber.domain.prior import POWERS, accuracy_on, frequencies
    from kuber.experiment.run_folder import open_run
    from kuber.experiment.scenario import load_scenario
    from kuber.learning.architectures import make_network
    from kuber.learning.runtime import Runtime
    from kuber.learning.weights import load

    result, run, _ = complete
    runtime = Runtime(**json.loads((run / "runtime.json").read_text(encoding="utf-8")))
    folder, settings = open_run(None, run)
    scenario = load_scenario(settings)
    assert not set(scenario.common.rows.tolist()) & set(scenario.held_out.rows.tolist())
    assert len(scenario.common) + len(scenario.held_out) == len(scenario.dataset.test)
    mean, std = scenario.dataset.mean[0], scenario.dataset.std[0]
    x = (torch.from_numpy(scenario.held_out.images()) / 255 - mean) / std
    for entity in result["entities"]:
        network = make_network("mlp", scenario.architectures[0].arguments).eval()
        kind = "average" if entity["deployed"] == "average" else "round"
        path = folder / "entities" / entity["entity"] / f"{kind}-{entity['deployed_round']:04d}.safetensors"
        data = path.read_bytes()
        network.load_state_dict(load(data, scenario.architectures[0]))
        with torch.inference_mode(), runtime.autocast():  # in the precision of the run, which affects rounding
            logits = network(x).float()
        # `vanilla` trains plain models: they carry their samples' prior, or less of it as others have taught them.
        counts = scenario.class_counts(int(entity["entity"]))
        prior = torch.tensor(frequencies(counts)).log()
        labels = torch.from_numpy(scenario.held_out.labels)
        general, own = [], []
        for power in POWERS:
            general.append(((logits - power * prior).argmax(1) == labels).float().mean().item())
            right = ((logits + (1 - power) * prior).argmax(1) == labels).float()
            own.append(accuracy_on(counts, [right[labels == label].mean().item() for label in range(10)]))
        assert min(abs(entity["final_accuracy"] - value) for value in general) < 2e-3
        # In bfloat16 an answer may depend on the batch, and one of a frequent class weighs more than a hundredth.
        assert min(abs(entity["own_accuracy"] - value) for value in own) < 0.04


def best_of_others(events, name, round):
    """Return the highest accuracy that others had published when this entity sent its query in this round."""
    sought = next(i for i, e in enumerate(events) if (e.entity, e.round, e.kind) == (name, round, "sought"))
    known, best = {}, 0.0
    for event in events[:sought]:
        if event.kind == "evaluated" and event.detail["stage"] == "trained":
            known[event.entity] = event.detail["accuracy"]
        elif event.kind == "published" and event.entity != name:
            best = max(best, known[event.entity])
    return best


def test_every_decision_in_the_log_is_that_of_vanilla(complete):
    result, run, _ = complete
    events = read_events(run / FILE_NAME)
    assert [events[0].kind, events[-1].kind] == ["run-started", "run-ended"]
    published = absorbed = 0
    for entity in result["entities"]:
        own = [event for event in events if event.entity == entity["entity"]]
        assert [event.seq for event in own] == list(range(len(own)))
        previous = None
        for number in range(1, 6):
            kinds = {event.kind: event.detail for event in own if event.round == number and event.kind != "evaluated"}
            evaluations = [event.detail for event in own if event.round == number and event.kind == "evaluated"]
            now = evaluations[0]["accuracy"]
            assert ("published" in kinds) == (previous is None or now > previous)
            assert ("sought" in kinds) == (previous is not None and now < previous)
            found = kinds.get("sought", {}).get("candidates")
            assert ("absorbed" in kinds) == (len(evaluations) == 2)
            # A candidate that is equally good is discovered, but not chosen.
            assert ("absorbed" in kinds) == bool(found and best_of_others(events, entity["entity"], number) > now)
            previous = kinds["round-ended"]["accuracy"]
            assert previous == evaluations[-1]["accuracy"]
            published += "published" in kinds
            absorbed += "absorbed" in kinds
    assert published > 4
    assert absorbed > 0, "this scenario is chosen so that deliveries occur"
    assert published == sum(entity["published"] for entity in result["entities"])
    assert absorbed == sum(entity["absorbed"] for entity in result["entities"])


def test_registry_and_vault_hold_what_the_log_says(complete):
    _, run, _ = complete
    logged = {
        e.detail["knowledge"]: e.detail["digest"] for e in read_events(run / FILE_NAME) if e.kind == "published"
    }
    (database,) = (run / "hub" / "registry").glob("*.sqlite")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        stored = {row[0] for row in connection.execute("SELECT id FROM knowledge")}
    assert stored == set(logged)
    blobs = {path.name for path in (run / "hub" / "vault").rglob("*") if re.fullmatch("[0-9a-f]{64}", path.name)}
    assert blobs == {digest.removeprefix("sha256:") for digest in logged.values()}
    for path in (run / "hub" / "vault").rglob("*"):
        if path.name in blobs:
            assert Digest.of(path.read_bytes()).hex == path.name


def test_the_run_folder_holds_plots_and_a_self_contained_report(complete):
    _, run, _ = complete
    for name in ("partition.png", "accuracy.png", "lineage.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    report = (run / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", report), "the report loads something"


def test_outside_a_terminal_the_user_reads_plain_lines(complete):
    _, _, err = complete
    assert "\x1b" not in err
    assert re.search(r"^entity 0  round 1/5  accuracy \d+\.\d%  published \w+$", err, re.MULTILINE)


@pytest.mark.process
@pytest.mark.parametrize("strategy", ["kuber", "vanilla"])
def test_a_killed_and_interrupted_run_is_resumed_with_nothing_lost_or_repeated(tmp_path, strategy):
    log = lambda: only_run(tmp_path) / FILE_NAME  # noqa: E731
    process = kuber("run", *QUICK, "--strategy", strategy, folder=tmp_path, at=(">round shown", "3"))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert_nothing_is_left(process.pid, tmp_path)

    run = only_run(tmp_path)
    ended = sum(event.kind == "round-ended" for event in read_events(log()))
    assert ended < 17
    process = kuber("run", "--resume", str(run), folder=tmp_path, at=("interrupt>round shown", str(ended + 3)))
    _, err = process.communicate()
    assert process.returncode == 130
    assert f"kuber run --resume {run}" in err
    assert "Traceback" not in err
    assert_nothing_is_left(process.pid, tmp_path)

    code, out, err = finished("run", "--resume", str(run), "--json", folder=tmp_path)
    assert code == 0, err
    result = json.loads(out)
    events = read_events(log())
    for entity in result["entities"]:
        own = [event for event in events if event.entity == entity["entity"]]
        assert [event.seq for event in own] == list(range(len(own)))
        assert [event.round for event in own if event.kind == "round-ended"] == [1, 2, 3, 4, 5]
        assert [event.kind for event in own].count("joined") == 1
    runs = [
        (event.kind, event.detail.get("resumed", event.detail.get("status"))) for event in events if not event.entity
    ]
    assert runs == [
        ("run-started", False),
        ("run-started", True),
        ("run-ended", "interrupted"),
        ("run-started", True),
        ("run-ended", "completed"),
    ]
    (database,) = (run / "hub" / "registry").glob("*.sqlite")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        (published,) = connection.execute("SELECT COUNT(*) FROM knowledge").fetchone()
        (delivered,) = connection.execute("SELECT COUNT(*) FROM deliveries").fetchone()
    assert published == sum(entity["published"] for entity in result["entities"])
    assert delivered == sum(event.kind == "absorbed" for event in events)


# One precision for all: `auto` measures which is quicker, and a busy machine may answer otherwise the next time.
LOCAL = [*QUICK, "--strategy", "local", "--num-entities", "2", "--num-rounds", "3"]
LOCAL += ["--learning-rate-schedule", "cosine"]
ALONE = ["run", *LOCAL, "--precision", "float32", "--threads", "1"]


@pytest.fixture(scope="module")
def unbroken(process, tmp_path_factory) -> dict:
    """The result of a run without exchange."""
    code, out, err = finished(*ALONE, "--json", folder=tmp_path_factory.mktemp("unbroken"))
    assert code == 0, err
    return json.loads(out)


def last_checkpoints(result: dict) -> list[Digest]:
    return [Digest.of(round_path(Path(result["run_dir"]) / "entities" / name, 3).read_bytes()) for name in ("0", "1")]


@pytest.mark.process
def test_without_exchange_a_resumed_run_ends_bit_for_bit_like_an_unbroken_one(unbroken, tmp_path):
    process = kuber(*ALONE, folder=tmp_path, at=(">round shown", "1"))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    code, out, err = finished("run", "--resume", str(only_run(tmp_path)), "--json", folder=tmp_path)
    assert code == 0, err
    assert last_checkpoints(json.loads(out)) == last_checkpoints(unbroken)


@pytest.mark.process
def test_run_and_simulate_agree_where_nothing_is_exchanged(unbroken, tmp_path):
    code, out, err = finished("simulate", *LOCAL, "--workers", "2", "--json", folder=tmp_path)
    assert code == 0, err
    simulated = json.loads(out)
    entities = [[dict(entity) for entity in result["entities"]] for result in (unbroken, simulated)]
    for entity in (entity for each in entities for entity in each):
        assert len(entity.pop("ends")) == 3  # by clocks of their own
    assert entities[0] == entities[1]
    assert last_checkpoints(unbroken) == last_checkpoints(simulated)
    assert unbroken.keys() == simulated.keys()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--num-rounds", "0"], 2, ["num_rounds"]),
        (["run", "--config", "missing.toml"], 2, ["missing.toml", "cannot be read"]),
        (["run", "--resume", "nowhere"], 2, ["nowhere", "not the folder of a run"]),
        (["run", "--resume", "nowhere", "--seed", "1"], 2, ["give no others"]),
        (["run", "--dataset", "digits", "--architecture", "lenet"], 2, ["lenet", "choose another architecture"]),
        (["run", "--dataset", "digits", "--num-entities", "200"], 2, ["1257 training samples", "200 entities"]),
        (["run", "--dataset", "digits", "--common-test-size", "540"], 2, ["common_test_size", "held out"]),
        (["run", "--dataset", "cifar10", "--data-dir", "missing"], 3, ["missing", "does not exist"]),
        (["run", "--dataset", "mnist"], 3, ["no data set 'mnist'"]),
        (["entity", "4", *QUICK], 2, ["no entity 4"]),
        (
            ["entity", "0", *QUICK, "--registry", "http://127.0.0.1:9", "--patience", "0.5"],
            4,
            ["registry", "http://127.0.0.1:9"],
        ),
    ],
)
def test_each_mistake_gets_one_clear_sentence_and_its_exit_code(tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.setattr(fork_server, "warm_up", lambda: None)  # in the background, for a run that never begins
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("KUBER_")]:
        monkeypatch.delenv(name)
    done = called(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("error: ")
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_an_occupied_port_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server, "warm_up", lambda: None)  # in the background, for a run that never begins
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        done = called("run", *QUICK, "--vault-port", port)
    assert done.returncode == 4
    assert re.search(rf"^error: .*{port}.*$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert services_in(tmp_path) == []


@pytest.mark.process
def test_a_service_that_dies_ends_the_run_in_one_sentence(tmp_path):
    process = kuber("run", *QUICK, "--num-rounds", "500", folder=tmp_path)
    wait_until(lambda: list(tmp_path.glob("runs/*/entities/*/round-0001*")), "a first round")
    # As listed before: the vault may end as soon as the registry does.
    (registry,) = [service for service in services_in(tmp_path) if "registry" in service.info["cmdline"]]
    registry.kill()
    _, err = process.communicate()
    assert process.returncode == 4
    assert "error: The registry ended unexpectedly" in err
    assert_nothing_is_left(process.pid, tmp_path)
