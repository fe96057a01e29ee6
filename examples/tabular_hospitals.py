"""Four hospitals, one disease, tables instead of images: nobody has a common test set, everybody has their own cases.

scikit-learn's breast cancer data over four sites of differing case mixes and sizes. Each site validates on its own
cases, so claims of others say nothing to it: it pulls what is newest and decides on what it finds itself. A hub in
memory stands in for a real one; `--hub http://127.0.0.1:5001` asks that instead.
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

CASES = ((16, 0.9), (16, 0.1), (24, 0.5), (12, 0.7))  # training cases of each site, and how many are benign


def make_sites(seed: int):
    """Training and validation data of each site, and the cases that no site sees."""
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


def live(seed: int, rounds: int, strategy: str | None, hub) -> list[float]:
    """The accuracy of each site on cases that no site has seen."""
    torch.manual_seed(seed)
    sites, unseen = make_sites(seed)
    run = uuid4().hex[:8]
    entities = []
    for place, (train, validation) in enumerate(sites):
        wide = (16, 32, 8, 24)[place]  # hospitals need not agree on a network
        model = nn.Sequential(nn.Linear(30, wide), nn.ReLU(), nn.Dropout(0.2), nn.Linear(wide, 2))
        entity = kuber.Entity(
            f"{run}-{place}",
            model=model,
            task=kuber.Task(name=f"tumours-{run}", labels=("malignant", "benign"), input_shape=(30,)),
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
    x, y = unseen
    told = []
    for entity, _ in entities:
        entity.model.eval()
        told.append((entity.model(x).argmax(1) == y).float().mean().item())
        entity.close()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hub", default=None)
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        hub = asked.hub or kuber.memory_hub()
        for strategy in ("local", "local-balanced", None):
            told = live(seed, asked.rounds, strategy, hub)
            line = "  ".join(f"{one:.1%}" for one in told)
            print(f"seed {seed}, {strategy or 'with KUber':<14}: {line}  mean {np.mean(told):.1%}")


if __name__ == "__main__":
    main()
