"""Wall time of `kuber run`, compared with the same experiment written in the usual way (benchmarks/plain.py).

Runs both alternately for each seed, from the start of the process to its end, and prints the ratio of their wall
times and both mean held-out accuracies. plain.py takes the partition, the samples trained, and the rounds in which an
entity publishes and distils from the run of KUber.

    python benchmarks/run_vs_plain.py --seeds 3
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from kuber.entity.state.event_log import read_events
from kuber.experiment.scenario import load_scenario
from kuber.settings import load

PLAIN = Path(__file__).with_name("plain.py")


def run_kuber(flags, folder):
    command = [sys.executable, "-m", "kuber", "run", "--preset", "quick", "--json"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    start = time.perf_counter()
    done = subprocess.run([*command, "--runs-dir", str(folder)], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout), time.perf_counter() - start


def plan_for(settings, scenario, run_dir):
    """Return the plan with which plain.py does the same work as the run in `run_dir`."""
    events = read_events(Path(run_dir) / "events.jsonl")
    names = [str(index) for index in range(settings.num_entities)]
    result = ("seed", "batch_size", "local_epochs", "learning_rate", "kd_epochs", "kd_temperature", "kd_alpha")
    rounds_of = lambda kind, name: [e.round for e in events if e.entity == name and e.kind == kind]  # noqa: E731
    return {name: getattr(settings, name) for name in result} | {
        "rounds": settings.num_rounds,
        "parts": [list(range(*span)) for span in spans(scenario)],
        "shares": [rounds_of("published", name) for name in names],
        "distils": [rounds_of("absorbed", name) for name in names],
    }


def spans(scenario):
    """Return the positions of each entity's samples in the concatenated arrays of `write_arrays`."""
    ends = np.cumsum([len(part) for part in scenario.private]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def write_arrays(scenario, path):
    private = [(part.images(), part.labels) for part in scenario.private]
    np.savez(
        path,
        x=np.concatenate([images for images, _ in private]),
        y=np.concatenate([labels for _, labels in private]),
        common_x=scenario.common.images(),
        common_y=scenario.common.labels,
        held_out_x=scenario.held_out.images(),
        held_out_y=scenario.held_out.labels,
    )


def run_plain(plan, scenario, folder):
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(plan))
    write_arrays(scenario, folder / "arrays.npz")
    command = [
        sys.executable,
        str(PLAIN),
        str(folder / "plan.json"),
        str(folder / "arrays.npz"),
        str(folder / "models"),
    ]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-rounds", type=int, default=8)
    parser.add_argument("--train-size", type=int, default=8000)
    parser.add_argument("--strategy", default="vanilla", help="strategy; local measures training without exchange")
    args = parser.parse_args()
    rows = []
    for seed in range(args.seeds):
        flags = {"seed": seed, "num_rounds": args.num_rounds, "train_size": args.train_size}
        flags |= {"strategy": args.strategy, "learning_rate": 0.01, "learning_rate_schedule": "constant"}
        settings = load(flags, preset="quick", environ={})
        scenario = load_scenario(settings)
        with tempfile.TemporaryDirectory() as temporary:
            ours, our_seconds = run_kuber(flags, Path(temporary) / "runs")
            plan = plan_for(settings, scenario, ours["run_dir"])
            theirs, their_seconds = run_plain(plan, scenario, Path(temporary) / "plain")
        their_samples = sum(entity["trained"] + entity["distilled"] for entity in theirs["entities"])
        rows.append(
            {
                "seed": seed,
                "kuber_seconds": our_seconds,
                "plain_seconds": their_seconds,
                "ratio": their_seconds / our_seconds,
                "kuber_accuracy": ours["mean_accuracy"],
                "plain_accuracy": mean(entity["accuracy"] for entity in theirs["entities"]),
                "kuber_samples": ours["samples_trained"],
                "plain_samples": their_samples,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    print(f"ratio of wall times, plain/kuber: {', '.join(format(row['ratio'], '.2f') for row in rows)}")
    for who in ("kuber", "plain"):
        values = [100 * row[f"{who}_accuracy"] for row in rows]
        spread = stdev(values) if len(values) > 1 else 0.0
        print(f"mean held-out accuracy, {who}: {mean(values):.2f} % (standard deviation {spread:.2f})")


if __name__ == "__main__":
    main()
