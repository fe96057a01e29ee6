"""Reproduce a published result: FedAvg on CIFAR-10 in NIID-Bench (Li et al., arXiv 2102.02079, table 3).

Their simple-cnn (our `lenet`), 10 parties, Dirichlet 0.5, 50 rounds of 10 local epochs, SGD at 0.01 with momentum 0.9
and weight decay 1e-5, batches of 64: 68.2 % after the last round. Differences: images are shifted by up to 2 pixels
(theirs: 4, reflected), every party has at least two batches (theirs: 10 samples), and 2,000 of the 10,000 test images
are our common test set, so accuracy is on the other 8,000.

Takes hours on two cores. Started again with the same --folder, it resumes.
"""

import argparse
import json
import time
from pathlib import Path

from kuber.experiment.comparison.methods import perform
from kuber.experiment.engines.factory import open_engine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.scenario import load_scenario
from kuber.learning.runtime import available_cores
from kuber.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/niid-bench"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = Settings(
        architecture="lenet",
        num_entities=10,
        num_rounds=args.rounds,
        local_epochs=10,
        weight_decay=1e-5,
        seed=args.seed,
    )
    start = time.perf_counter()
    ended = 0

    def on_round() -> None:
        nonlocal ended
        ended += 1
        if ended % settings.num_entities == 0:
            print(f"round {ended // settings.num_entities}: {time.perf_counter() - start:.0f} s", flush=True)

    with open_engine(available_cores()) as engine:
        done = perform("fedavg", load_scenario(settings), engine=ResultCache(engine, args.folder), on_round=on_round)
    # All entities have the same model.
    accuracies = [round(entry.evaluation.accuracy, 4) for entry in done.metrics if entry.entity == 0]
    print(json.dumps({"accuracies": accuracies, "seconds": time.perf_counter() - start, "published": 0.682}))


if __name__ == "__main__":
    main()
