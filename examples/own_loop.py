"""One plain PyTorch loop, two sites, two architectures: with KUber and without, and the gain for three seeds.

Start a hub first: `kuber vault` in one terminal, `kuber registry --open-enrolment` in another.
"""

import sys
from uuid import uuid4

import torch
from torch import nn

import kuber

data = kuber.load_tensors(sys.argv[1] if len(sys.argv) > 1 else "fashion-mnist")
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 6
(x, y), (test_x, test_y), shape = data.train, data.test, data.train[0].shape[1:]
common, held_out = [tuple(part[rows] for part in data.test) for rows in (slice(0, None, 5), slice(1, None, 5))]


def live(seed: int, hub: str | None) -> float:
    torch.manual_seed(seed)
    run, sites = uuid4().hex[:8], []
    task = kuber.Task(name=run, labels=data.labels, input_shape=shape, test_set=kuber.test_set_digest(common))
    for side, eye in enumerate((nn.Flatten(), nn.Sequential(nn.Conv2d(shape[0], 32, 3), nn.ReLU(), nn.Flatten()))):
        model = nn.Sequential(eye, nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, len(data.labels)))
        model(x[:1])
        mine = torch.nonzero((y % 2 == side) | (torch.rand(len(y)) < 0.02)).flatten()[
            :2000
        ]  # half the classes are rare
        entity = hub and kuber.Entity(f"{run}-{side}", model=model, task=task, validation=common, hub=hub)
        sites.append((model, torch.optim.Adam(model.parameters()), mine, entity))
    for _ in range(rounds):
        for model, optimizer, mine, entity in sites:
            teachers = entity.step(optimizer) if entity else None
            for rows in mine[torch.randperm(len(mine))].split(50):
                logits = model(x[rows])
                loss = nn.functional.cross_entropy(logits, y[rows])
                loss = loss + teachers.loss(logits, x[rows], y[rows]) if teachers else loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return sum((model(held_out[0]).argmax(1) == held_out[1]).float().mean().item() for model, *_ in sites) / 2


for seed in (0, 1, 2):
    alone, together = live(seed, hub=None), live(seed, hub="http://127.0.0.1:5001")
    print(f"seed {seed}: {alone:.1%} alone, {together:.1%} with KUber, {100 * (together - alone):+.1f} points")
