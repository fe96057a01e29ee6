"""`fedavg` in KUber's and Flower's simulation: same model, data, samples and cores, alternately.

Flower has a venv of its own, which is created if it is missing. Start-up is excluded: the clock starts when workers
have imported torch. Data: the 8x8 digits as vectors, without augmentation. Prints one JSON line per turn.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from kuber.data.batches import Normalisation
from kuber.experiment.comparison.methods import perform
from kuber.experiment.engines.factory import open_engine
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.learning.architectures import initial_weights
from kuber.settings import Settings

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"


def make_venv(venv: Path) -> None:
    if not (venv / "bin" / "flwr").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", TORCH, "flwr[simulation]==1.41.*"], check=True)


def export(scenario: Scenario, path: Path) -> None:
    normalise = Normalisation(scenario.dataset.mean, scenario.dataset.std)
    arrays = {}
    for index, private in enumerate(scenario.private):
        arrays[f"x_{index}"], arrays[f"y_{index}"] = normalise(private.images()).numpy(), private.labels
    arrays["x_test"], arrays["y_test"] = normalise(scenario.held_out.images()).numpy(), scenario.held_out.labels
    weights = initial_weights(scenario.architectures[0], scenario.settings.seed)
    np.savez(path, **arrays, **{f"w:{name}": tensor.numpy() for name, tensor in weights.items()})


def ours(scenario: Scenario) -> dict[str, float]:
    with open_engine(2) as engine:
        warm_up = replace(scenario, settings=scenario.settings.model_copy(update={"num_rounds": 1}))
        perform("fedavg", warm_up, engine=engine)
        start = time.perf_counter()
        done = perform("fedavg", scenario, engine=engine)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": done.metrics[-1].evaluation.accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--venv", type=Path, default=Path("~/.cache/kuber/peers/flower").expanduser())
    args = parser.parse_args()
    make_venv(args.venv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = load_digits(return_X_y=True)
        np.savez(folder / "digits.npz", x=x.astype(np.float32), y=y)
        for turn in range(args.turns):
            settings = Settings(
                dataset=str(folder / "digits.npz"),
                architecture="mlp",
                num_entities=args.entities,
                num_rounds=args.rounds,
                local_epochs=1,
                partition="iid",
                seed=turn,
                cache_dir=folder / "cache",
            )
            scenario = load_scenario(settings)
            export(scenario, folder / "arrays.npz")
            command = [args.venv / "bin" / "python", HERE / "flower_fedavg.py", folder / "arrays.npz"]
            command += ["--entities", str(args.entities), "--rounds", str(args.rounds)]
            theirs, mine = json.loads(_last_line(command)), ours(scenario)
            idle = json.loads(_last_line([*command, "--no-op"]))
            result = {"turn": turn, "ours": mine, "flower": theirs, "ratio": theirs["seconds"] / mine["seconds"]}
            print(
                json.dumps(result | {"flower_no_op_ms_per_task": 1000 * idle["seconds"] / idle["tasks"]}), flush=True
            )


def _last_line(command: list[object]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    main()
