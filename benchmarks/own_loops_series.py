"""Series for own_loops.py: GRU and LSTM on JapaneseVowels, which the package aeon ships, and on drawn waveforms."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from own_loops_owners import PlainLoop, Site, Workload
from torch import nn

LENGTH = 29  # of the longest vowel
FORMS = ("sine", "square", "triangle", "sawtooth", "pulse")


class Recurrent(nn.Module):
    """A recurrent network and a linear layer on its mean output; x has shape (batch, steps, channels)."""

    def __init__(self, kind: str, channels: int, classes: int) -> None:
        super().__init__()
        self.cells = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](channels, 32, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0].mean(1))


def vowels() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return 640 utterances of nine speakers, shape (n, steps, 12), padded with zeros, and the speakers."""
    found = find_spec("aeon")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("error: the vowels need aeon's files: pip install --no-deps aeon")
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "JapaneseVowels"
    x, y = [], []
    for part in ("TRAIN", "TEST"):
        lines = (folder / f"JapaneseVowels_{part}.ts").read_text().split("@data\n", 1)[1].splitlines()
        for *channels, label in (line.split(":") for line in lines):
            values = np.array([[float(value) for value in channel.split(",")] for channel in channels]).T
            x.append(np.pad(values, ((0, LENGTH - len(values)), (0, 0))))
            y.append(int(label) - 1)
    return np.stack(x), np.array(y), [f"speaker {number}" for number in range(1, 10)]


def waveforms(draws: np.random.Generator, count: int = 1800) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return noisy periods of five forms, of any frequency and phase, shape (n, 48, 1); some forms are rare."""
    y = draws.choice(len(FORMS), count, p=(0.3, 0.3, 0.2, 0.1, 0.1))
    turns = draws.uniform(2, 5, (count, 1)) * np.linspace(0, 1, 48) + draws.uniform(0, 1, (count, 1))
    turn = turns % 1
    forms = np.stack(
        [
            np.sin(2 * np.pi * turn),
            np.sign(turn - 0.5),
            4 * np.abs(turn - 0.5) - 1,
            2 * turn - 1,
            np.where(turn < 0.2, 1.0, -1.0),
        ]
    )
    x = forms[y, np.arange(count)] + draws.normal(0, 0.4, turn.shape)
    return x[:, :, None], y, list(FORMS)


def series(kind: str, data: str, draws: np.random.Generator, samples: int) -> Workload:
    """Return series, of which a third is for the test."""
    x, y, labels = vowels() if data == "vowels" else waveforms(draws)
    rows = draws.permutation(len(x))
    x, y = torch.tensor(x[rows], dtype=torch.float32), torch.tensor(y[rows])
    cut = len(x) // 3

    def owner(site: Site, rounds: int) -> PlainLoop:
        model = Recurrent(kind, x.shape[2], site.classes)
        return PlainLoop(site, model, torch.optim.Adam(model.parameters(), 3e-3), epochs=4)

    pool = (x[cut:][:samples], y[cut:][:samples])
    return Workload(labels, tuple(x.shape[1:]), pool, (x[:cut], y[:cut]), owner)


WORKLOADS = {
    f"{kind}-{data}": lambda draws, samples, kind=kind, data=data: series(kind, data, draws, samples)
    for data in ("vowels", "waveforms")
    for kind in ("gru", "lstm")
}
