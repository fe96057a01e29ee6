"""A plain PyTorch loop on two sites with two architectures, with KUber and without: the gain, for three seeds.

Start a hub first: `kuber vault` in one terminal, `kuber registry --open-enrolment` in another.
"""

import sys
from uuid import uuid4

import torch
from torch import nn

import kuber

data = kuber.load_tensors(sys.argv[1] if len(sys.argv) > 1 else "fashion-mnist")
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 6
(x, y), (test_x, test_y) = data.train, data.test
size, common = (
    len(test_x) // 5,
    (test_x[: len(test_x) // 5], test_y[: len(test_x) // 5]),
)  # told on the other test samples


def accuracy(seed: int, shares: bool) -> float:
    torch.manual_seed(seed)
    run, shape, sites = uuid4().hex[:8], tuple(x.shape[1:]), []
    task = kuber.Task(name=run, labels=data.labels, input_shape=shape, test_set=kuber.test_set_digest(common))
    for side, features in enumerate(
        (nn.Flatten(), nn.Sequential(nn.Conv2d(shape[0], 32, 3), nn.ReLU(), nn.Flatten()))
    ):
        model = nn.Sequential(features, nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, len(data.labels)))
        model(x[:1])
        mine = torch.nonzero((y % 2 == side) | (torch.rand(len(y)) < 0.02)).flatten()[
            :2000
        ]  # every second class is rare
        entity = kuber.Entity(f"{run}-{side}", model=model, task=task, validation=common) if shares else None
        sites.append((model, torch.optim.Adam(model.parameters()), mine, entity))
    for _ in range(rounds):
        for model, optimizer, mine, entity in sites:
            teachers = entity.step(optimizer) if entity else None
            for rows in mine[torch.randperm(len(mine))].split(50):
                said = model(x[rows])
                loss = nn.functional.cross_entropy(said, y[rows])
                if teachers:
                    loss = kuber.distillation_loss(said, teachers(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return sum((model(test_x[size:]).argmax(1) == test_y[size:]).float().mean().item() for model, *_ in sites) / 2


for seed in (0, 1, 2):
    alone, together = accuracy(seed, shares=False), accuracy(seed, shares=True)
    print(f"seed {seed}: {alone:.1%} alone, {together:.1%} with KUber: {100 * (together - alone):+.1f} points")
