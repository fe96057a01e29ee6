"""`fedavg` with a hundred entities and skewed data: in KUber's, Flower's and pfl's simulation.

The 8x8 digits as vectors, `mlp`, class mixtures from Dirichlet(0.1), the same initial weights, samples and epochs
everywhere. Flower and KUber have two workers of one thread; pfl has one process, its default. The clock starts after
a first round, in which workers import torch. Memory is the peak of the whole program, proportional, summed over its
processes. Accuracy is that of the last round on the whole held-out test set. Each peer has a venv of its own, which
is created if it is missing. Prints one JSON line per seed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from simulate_vs_flower import TORCH, export, make_venv, ours
from sklearn.datasets import load_digits
from tree_memory import TreeMemory

from kuber.experiment.scenario import Scenario, load_scenario
from kuber.settings import Settings

HERE = Path(__file__).parent
BATCH = 4


def make_pfl(venv: Path) -> None:
    if not (venv / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", TORCH, "pfl[pytorch]==0.6.*"], check=True)


def scene_of(folder: Path, seed: int, entities: int, rounds: int) -> Scenario:
    settings = Settings(
        dataset=str(folder / "digits.npz"),
        architecture="mlp",
        num_entities=entities,
        num_rounds=rounds,
        local_epochs=1,
        batch_size=BATCH,
        partition="mixture",
        dirichlet_alpha=0.1,
        seed=seed,
        cache_dir=folder / "cache",
    )
    return load_scenario(settings)


def measured(command: list[object]) -> dict[str, Any]:
    """Return the last line that a program prints, with the peak memory of it and its children."""
    parts = [str(part) for part in command]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(parts, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        with TreeMemory(process.pid) as memory:
            out, _ = process.communicate()
        errors.seek(0)
        if process.returncode:
            raise SystemExit(errors.read()[-2000:])
    result = json.loads(out.strip().splitlines()[-1])
    return {key: result[key] for key in ("seconds", "accuracy")} | {"mb_at_most": memory.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=Path("~/.cache/kuber/peers").expanduser())
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "SEED"), help="only KUber, in this process")
    args = parser.parse_args()
    if args.one:
        scenario = scene_of(Path(args.one[0]), int(args.one[1]), args.entities, args.rounds)
        print(json.dumps(ours(scenario)))
        return
    flower, pfl = args.peers / "flower", args.peers / "pfl"
    make_venv(flower)
    make_pfl(pfl)
    size = ["--entities", args.entities, "--rounds", args.rounds]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = load_digits(return_X_y=True)
        np.savez(folder / "digits.npz", x=x.astype(np.float32), y=y)
        for seed in range(args.seeds):
            export(scene_of(folder, seed, args.entities, args.rounds), folder / "arrays.npz")
            theirs = [folder / "arrays.npz", *size, "--batch-size", BATCH]
            rows = {
                "ours": measured([sys.executable, __file__, "--one", folder, seed, *size]),
                "flower": measured([flower / "bin" / "python", HERE / "flower_fedavg.py", *theirs]),
                "pfl": measured([pfl / "bin" / "python", HERE / "pfl_fedavg.py", *theirs]),
            }
            rounded = {who: {key: round(value, 3) for key, value in row.items()} for who, row in rows.items()}
            ratios = {who: round(rows[who]["seconds"] / rows["ours"]["seconds"], 2) for who in ("flower", "pfl")}
            print(json.dumps({"seed": seed} | rounded | {"times_ours": ratios}), flush=True)


if __name__ == "__main__":
    main()
