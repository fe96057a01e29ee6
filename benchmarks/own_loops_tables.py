"""Tables for own_loops.py: breast cancer and digits of scikit-learn, with an MLP and gradient-boosted trees."""

import numpy as np
import torch
from own_loops_owners import PlainLoop, Site, TreeLoop, Workload
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn


def network(site: Site, rounds: int) -> PlainLoop:
    """Return an owner of a network."""
    width = site.train[0].shape[1]
    model = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, site.classes))
    return PlainLoop(site, model, torch.optim.Adam(model.parameters(), 1e-3), epochs=3, batch_size=16)


def trees_or_network(site: Site, rounds: int) -> PlainLoop | TreeLoop:
    """Return an owner of trees at every other site, so that trees and networks learn from each other."""
    return TreeLoop(site) if site.number % 2 == 0 else network(site, rounds)


def table(name: str, draws: np.random.Generator, samples: int, owner: object) -> Workload:
    """Return a table, of which a third is for the test."""
    data = load_breast_cancer() if name == "cancer" else load_digits()
    x = data.data / 16 if name == "digits" else (data.data - data.data.mean(0)) / data.data.std(0)
    rows = draws.permutation(len(x))
    x, y = torch.tensor(x[rows], dtype=torch.float32), torch.tensor(data.target[rows]).long()
    cut = len(x) // 3
    labels = [str(label) for label in data.target_names]
    pool = (x[cut:][:samples], y[cut:][:samples])
    return Workload(labels, tuple(x.shape[1:]), pool, (x[:cut], y[:cut]), owner)


WORKLOADS = {
    "cancer-mlp": lambda draws, samples: table("cancer", draws, samples, network),
    "cancer-trees": lambda draws, samples: table("cancer", draws, samples, trees_or_network),
    "digits-mlp": lambda draws, samples: table("digits", draws, samples, network),
    "digits-trees": lambda draws, samples: table("digits", draws, samples, trees_or_network),
}
