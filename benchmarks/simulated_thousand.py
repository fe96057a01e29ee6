"""Time and memory of a thousand simulated entities that do not train: in KUber's and Flower's simulation.

The method is fedavg: in every round, every task receives weights of the given size and returns others of that size,
which are averaged. A further row is `kuber`, whose entities also publish, discover, pull and merge in every round.
Two workers of one thread everywhere. Start-up is excluded: clock and memory count from when workers have imported
torch. Memory is proportional, summed over the process tree, sampled. Flower has a venv of its own, which is created
if it is missing. Prints one JSON line per row.
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
    """Yield the JSON lines of a program as they are printed, with its process."""
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


def flower(args: argparse.Namespace) -> dict[str, Any]:
    command = [args.venv / "bin" / "python", HERE / "flower_idle.py", "--workers", args.workers]
    command += ["--entities", args.entities, "--rounds", args.rounds, "--bytes", args.bytes]
    result: dict[str, Any] = {}
    memory = None
    for process, line in lines_of(command):
        if memory is None:
            result["mb_at_start"], result["anonymous_mb_at_start"] = look(process.pid)
            memory = TreeMemory(process.pid, seconds=1.0).__enter__()
        else:
            memory.__exit__()
            result |= line | {"mb_at_most": memory.peak, "anonymous_mb_at_most": memory.peak_anonymous}
    return result


def ours(args: argparse.Namespace, engine: str, strategy: str) -> dict[str, Any]:
    command = [sys.executable, HERE / "simulation_overhead.py", "--one", "--engine", engine, "--strategy", strategy]
    command += ["--workers", args.workers, "--entities", args.entities]
    command += ["--rounds", args.rounds, "--bytes", args.bytes]
    return next(line for _, line in lines_of(command))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--venv", type=Path, default=Path("~/.cache/kuber/peers/flower").expanduser())
    args = parser.parse_args()
    make_venv(args.venv)
    for turn in range(args.turns):
        rows: dict[str, dict[str, Any]] = {}
        for name, measure in (
            ("processes, fedavg", partial(ours, args, "processes", "fedavg")),
            ("Flower, fedavg", partial(flower, args)),
            ("ray, fedavg", partial(ours, args, "ray", "fedavg")),
            ("processes, kuber", partial(ours, args, "processes", "kuber")),
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
