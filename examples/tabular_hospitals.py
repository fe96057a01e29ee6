"""Four hospitals with tables instead of images, and without a common test set.

scikit-learn's breast cancer data, split over four sites of different case mixes and sizes. Each site validates on its
own cases, so claims of other sites cannot be compared: it pulls the newest models and evaluates them itself. The hub
is in memory; `--hub http://127.0.0.1:5001` uses a running one instead.
"""

import argparse
import tempfile
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kuber

CASES = ((16, 0.9), (16, 0.1), (24, 0.5), (12, 0.7))  # training cases of each site, and the share that is benign


def make_sites(seed: int):
    """Return training and validation data of each site, and the held-out cases that no site has."""
    draws = np.random.default_rng(seed)
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    pools = [list(draws.permutation(np.flatnonzero(y == label))) for label in (0, 1)]
    sites = []
    for count, benign in CASES:
        wanted = [round(2 * count * (1 - benign)), round(2 * count * benign)]
        wanted = [min(n, len(pool) // 3) for n, pool in zip(wanted, pools, strict=True)]
        rows = draws.permutation([pool.pop() for pool, n in zip(pools, wanted, strict=True) for _ in range(n)])
        sites.append((tensors(x, y, rows[::2]), tensors(x, y, rows[1::2])))
    return sites, tensors(x, y, np.array(pools[0] + pools[1]))


def tensors(x, y, rows):
    return torch.tensor(x[rows], dtype=torch.float32), torch.tensor(y[rows])


def run(seed: int, rounds: int, strategy: str | None, hub) -> list[float]:
    """Train all sites and return the accuracy of each on the held-out cases."""
    torch.manual_seed(seed)
    sites, held_out = make_sites(seed)
    name = uuid4().hex[:8]
    entities = []
    for number, (train, validation) in enumerate(sites):
        width = (16, 32, 8, 24)[number]  # hospitals need not agree on an architecture
        model = nn.Sequential(nn.Linear(30, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 2))
        entity = kuber.Entity(
            f"{name}-{number}",
            model=model,
            task=kuber.Task(name=f"tumours-{name}", labels=("malignant", "benign"), input_shape=(30,)),
            validation=validation,
            hub=hub,
            **({"strategy": strategy} if strategy else {}),
            folder=Path(tempfile.mkdtemp()),
        )
        entities.append((entity, DataLoader(TensorDataset(*train), batch_size=8, shuffle=True)))
    optimizers = [torch.optim.Adam(entity.model.parameters(), 3e-3) for entity, _ in entities]
    for _ in range(rounds):
        for (entity, loader), optimizer in zip(entities, optimizers, strict=True):
            entity.fit(loader, rounds=1, epochs=2, optimizer=optimizer)
    x, y = held_out
    accuracies = []
    for entity, _ in entities:
        entity.model.eval()
        accuracies.append((entity.model(x).argmax(1) == y).float().mean().item())
        entity.close()
    return accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hub", default=None)
    args = parser.parse_args()
    for seed in range(args.seeds):
        hub = args.hub or kuber.memory_hub()
        for strategy in ("local", "local-balanced", None):
            accuracies = run(seed, args.rounds, strategy, hub)
            line = "  ".join(f"{accuracy:.1%}" for accuracy in accuracies)
            print(f"seed {seed}, {strategy or 'with KUber':<14}: {line}  mean {np.mean(accuracies):.1%}")


if __name__ == "__main__":
    main()
