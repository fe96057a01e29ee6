"""A thousand simulated entities that do not train: here and in Flower's simulation, time and memory of each.

The method is the same, fedavg: every task receives weights of the size that was asked for and returns others of that
size, in every round, and they are averaged. A further row is `kuber`, whose entities in addition publish, seek, pull
and merge in every round. Two workers of one thread everywhere; start-up is apart: clock and memory are looked at from
when workers have imported torch. Memory is proportional, summed over the process tree, sampled. Flower has a venv of
its own (made when it is missing). Prints one JSON line a row.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from simulate_vs_flower import make_venv
from tree_memory import TreeMemory, look

HERE = Path(__file__).parent


def lines_of(command: list[object]) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The JSON lines of a program as they come, with its process."""
    parts = [str(part) for part in command]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(parts, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield process, json.loads(line)
        process.wait()
        errors.seek(0)
        if process.returncode:
            raise SystemExit(errors.read()[-2000:])


def flower(asked: argparse.Namespace) -> dict[str, Any]:
    command = [asked.venv / "bin" / "python", HERE / "flower_idle.py", "--workers", asked.workers]
    command += ["--entities", asked.entities, "--rounds", asked.rounds, "--bytes", asked.bytes]
    told: dict[str, Any] = {}
    memory = None
    for process, line in lines_of(command):
        if memory is None:
            told["mb_at_start"], told["anonymous_mb_at_start"] = look(process.pid)
            memory = TreeMemory(process.pid, seconds=1.0).__enter__()
        else:
            memory.__exit__()
            told |= line | {"mb_at_most": memory.peak, "anonymous_mb_at_most": memory.peak_anonymous}
    return told


def ours(asked: argparse.Namespace, engine: str, strategy: str) -> dict[str, Any]:
    command = [sys.executable, HERE / "simulation_overhead.py", "--one", "--engine", engine, "--strategy", strategy]
    command += ["--workers", asked.workers, "--entities", asked.entities]
    command += ["--rounds", asked.rounds, "--bytes", asked.bytes]
    return next(line for _, line in lines_of(command))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--venv", type=Path, default=Path("~/.cache/kuber/peers/flower").expanduser())
    asked = parser.parse_args()
    make_venv(asked.venv)
    for turn in range(asked.turns):
        rows: dict[str, dict[str, Any]] = {}
        for name, measure in (
            ("processes, fedavg", partial(ours, asked, "processes", "fedavg")),
            ("Flower, fedavg", partial(flower, asked)),
            ("ray, fedavg", partial(ours, asked, "ray", "fedavg")),
            ("processes, kuber", partial(ours, asked, "processes", "kuber")),
        ):
            row = rows[name] = measure()
            kept = {key: round(value, 2) for key, value in row.items() if key.startswith(("ms", "cpu", "mb", "anon"))}
            print(json.dumps({"turn": turn, "row": name} | kept), flush=True)
        theirs, mine = rows["Flower, fedavg"], rows["processes, fedavg"]
        ratio = {"time": theirs["ms_per_task"] / mine["ms_per_task"]}
        ratio |= {"memory": theirs["mb_at_most"] / mine["mb_at_most"]}
        print(json.dumps({"turn": turn, "Flower against processes, fedavg": ratio}), flush=True)


if __name__ == "__main__":
    main()
