"""Four sites with four different architectures and differently skewed images of digits.

The sites have no training loop of their own and call `fit`. Printed are accuracies on held-out images: of each site
alone with a plain loss, alone with a class-balanced loss, and with KUber.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kuber


def networks() -> list[nn.Module]:
    """Return a linear model, a perceptron, a convolutional and a recurrent network."""
    return [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)),
        Rows(),
    ]


class Rows(nn.Module):
    """A recurrent network over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.GRU(8, 32, batch_first=True)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.reader(x.squeeze(1))[0][:, -1])


def run(seed: int, rounds: int, **strategy: str) -> list[float]:
    """Train all sites and return the accuracy of each."""
    torch.manual_seed(seed)
    data = kuber.load_tensors("digits")
    (x, y), (test_x, test_y) = data.train, data.test
    common, held_out = (
        (test_x[::3], test_y[::3]),
        (torch.cat([test_x[1::3], test_x[2::3]]), torch.cat([test_y[1::3], test_y[2::3]])),
    )
    task = kuber.Task(
        name="digits", labels=data.labels, input_shape=(1, 8, 8), test_set=kuber.test_set_digest(common)
    )
    # Each site has 150 images, whose mixture of classes is drawn from a Dirichlet distribution.
    shares = torch.distributions.Dirichlet(torch.full((10,), 0.5)).sample((4,))
    hub, sites = kuber.memory_hub(), []
    for number, model in enumerate(networks()):
        rows = torch.multinomial(shares[number][y], 150)
        entity = kuber.Entity(
            f"site {number}",
            model=model,
            task=task,
            validation=common,
            hub=hub,
            folder=Path(tempfile.mkdtemp()),
            **strategy,
        )
        loader = DataLoader(TensorDataset(x[rows], y[rows]), batch_size=15, shuffle=True)
        sites.append((entity, loader, torch.optim.Adam(model.parameters(), 3e-3)))
    for _ in range(rounds):
        for entity, loader, optimizer in sites:
            entity.fit(loader, rounds=1, epochs=2, optimizer=optimizer)
    return [(entity.model(held_out[0]).argmax(1) == held_out[1]).float().mean().item() for entity, *_ in sites]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    for seed in range(args.seeds):
        for strategy in ({"strategy": "local"}, {"strategy": "local-balanced"}, {}):
            accuracies = run(seed, args.rounds, **strategy)
            line = "  ".join(f"{accuracy:.1%}" for accuracy in accuracies)
            label = strategy.get("strategy", "with KUber")
            print(f"seed {seed}, {label:<14}: {line}  mean {sum(accuracies) / 4:.1%}")
