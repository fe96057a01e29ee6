"""Text classification without downloads: which part of Python's standard library is a docstring about?

Two teams with two architectures have labelled docstrings, most of them on half of the topics. All other docstrings
are public but unlabelled: there each team learns from the other team's model. Samples are ids of hashed words. The
hub is in memory.
"""

import argparse
import importlib
import re
import tempfile
import zlib
from pathlib import Path

import torch
from torch import nn

import kuber

TOPICS = {
    "files": ("os", "shutil", "pathlib", "tempfile", "glob", "zipfile", "tarfile", "io"),
    "numbers": ("math", "statistics", "decimal", "fractions", "random", "datetime", "calendar"),
    "network": ("socket", "ssl", "smtplib", "ftplib", "http.client", "urllib.request", "email.message"),
    "processes": ("threading", "subprocess", "multiprocessing.pool", "asyncio.events", "queue", "sched", "signal"),
}
WORDS, LENGTH = 4096, 32  # number of ids, and words of a sample; id 0 is padding


def read() -> tuple[torch.Tensor, torch.Tensor]:
    """Return pieces of docstrings as ids, shape (pieces, LENGTH), and the topic of each."""
    pieces, topics = [], []
    for topic, modules in enumerate(TOPICS.values()):
        texts = set()
        for name in modules:
            module = importlib.import_module(name)
            for item in (module, *(getattr(module, name, None) for name in dir(module))):
                members = (getattr(item, name, None) for name in dir(item)) if isinstance(item, type) else ()
                docs = (getattr(documented, "__doc__", None) for documented in (item, *members))
                texts |= {text for text in docs if isinstance(text, str)}
        for text in sorted(texts):
            words = re.findall(r"[a-z]{3,}", text.lower())
            ids = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in words]
            for start in range(0, len(ids) - 7, LENGTH):
                part = ids[start : start + LENGTH]
                pieces.append(part + [0] * (LENGTH - len(part)))
                topics.append(topic)
    return torch.tensor(pieces), torch.tensor(topics)


class Bag(nn.Module):
    """Mean of the word vectors, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 64, padding_idx=0)
        self.out = nn.Linear(64, len(TOPICS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.words(ids).sum(1) / (ids != 0).sum(1, keepdim=True))


class Convolution(nn.Module):
    """Convolution over pairs of words, maximum over positions, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 32, padding_idx=0)
        self.pairs = nn.Conv1d(32, 64, 2)
        self.out = nn.Linear(64, len(TOPICS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.pairs(self.words(ids).transpose(1, 2))).amax(2))


def run(seed: int, rounds: int, exchange: bool) -> list[float]:
    """Train both teams and return the accuracy of each on held-out pieces."""
    torch.manual_seed(seed)
    x, y = read()
    order = torch.randperm(len(y))
    common, held_out, rest = order[:300], order[300:900], order[900:]
    hub, teams = kuber.memory_hub(), []
    task = kuber.Task(
        name="topics",
        labels=tuple(TOPICS),
        input_shape=(LENGTH,),
        test_set=kuber.test_set_digest((x[common], y[common])),
    )
    for side, model in enumerate((Bag(), Convolution())):
        mine = rest[(y[rest] % 2 == side) | (torch.rand(len(rest)) < 0.05)][:200]
        entity = kuber.Entity(
            type(model).__name__,
            model=model,
            task=task,
            validation=(x[common], y[common]),
            hub=hub,
            folder=Path(tempfile.mkdtemp()),
        )
        teams.append((entity, mine, torch.optim.Adam(model.parameters(), 3e-3)))
    for _ in range(rounds):
        for entity, mine, optimizer in teams:
            teachers = entity.step(optimizer) if exchange else None
            for rows in mine[torch.randperm(len(mine))].repeat(2).split(20):
                loss = nn.functional.cross_entropy(entity.model(x[rows]), y[rows])
                if teachers:
                    public = rest[torch.randint(len(rest), (60,))]  # used without their labels
                    loss = loss + kuber.losses.distillation_loss(entity.model(x[public]), teachers(x[public]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return [(entity.model(x[held_out]).argmax(1) == y[held_out]).float().mean().item() for entity, *_ in teams]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    for seed in range(args.seeds):
        for exchange in (False, True):
            bag, convolution = run(seed, args.rounds, exchange)
            label = "with KUber" if exchange else "alone"
            print(f"seed {seed}, {label:<10}: bag of words {bag:.1%}, convolution {convolution:.1%}")
