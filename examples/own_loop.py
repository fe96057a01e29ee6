"""A plain PyTorch loop with and without KUber; first start `kuber vault` and `kuber registry --open-enrolment`."""

import sys

import torch
from torch import nn

import kuber

data = kuber.load_tensors(sys.argv[1] if sys.argv[1:] else "fashion-mnist")
(x, y), shape = data.train, data.train[0].shape[1:]
common, held_out = (tuple(part[first::5] for part in data.test) for first in (0, 1))


def run(seed: int, hub: str | None) -> float:
    name, sites = f"run {torch.seed()}", []  # a new task for each run, so that earlier runs have no influence
    torch.manual_seed(seed)
    task = kuber.Task(name=name, labels=data.labels, input_shape=shape, test_set=kuber.test_set_digest(common))
    for side, stem in enumerate((nn.Flatten(), nn.Sequential(nn.Conv2d(shape[0], 32, 3), nn.ReLU(), nn.Flatten()))):
        model = nn.Sequential(stem, nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, len(data.labels)))
        model(x[:1])
        rare = torch.rand(len(y)) < 0.02  # few samples of the other half of the classes
        mine = torch.nonzero((y % 2 == side) | rare).flatten()[:2000]
        entity = hub and kuber.Entity(f"{name}, {side}", model=model, task=task, validation=common, hub=hub)
        sites.append((model, torch.optim.Adam(model.parameters()), mine, entity))
    for _, (model, optimizer, mine, entity) in ((turn, site) for turn in range(6) for site in sites):
        teachers = entity.step(optimizer) if entity else None
        for rows in mine[torch.randperm(len(mine))].split(50):
            loss = nn.functional.cross_entropy(logits := model(x[rows]), y[rows])
            loss = loss + teachers.loss(logits, x[rows], y[rows]) if teachers else loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return sum((model(held_out[0]).argmax(1) == held_out[1]).float().mean().item() for model, *_ in sites) / 2


for seed in (0, 1, 2):
    alone, together = run(seed, hub=None), run(seed, hub="http://127.0.0.1:5001")
    print(f"seed {seed}: {alone:.1%} alone, {together:.1%} with KUber, {100 * (together - alone):+.1f} points")
