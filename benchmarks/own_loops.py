"""Owners with loops of their own, alone and with `kuber.Entity` in its default strategy: what joining does to each.

Two or five sites have 90 % of their home classes each, and a hub in memory. Alone and with KUber a site has the same
samples, initial weights, order of batches and number of steps. One file of results for each workload, number of sites
and seed in --folder; what is there already is not measured again, and the table is made from the files.

    python benchmarks/own_loops.py                                      # all, for hours
    python benchmarks/own_loops.py --workload digits-mlp --sites 2 --seeds 0 1 2
    python benchmarks/own_loops.py --workload digits-mlp --guest liar   # and the table says what a liar does
    python benchmarks/own_loops.py --workload vit --samples 300 --rounds 2 --seeds 0 --folder /tmp/tiny
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from own_loops_figures import print_figures
from own_loops_owners import Site, Workload, divided

import kuber

GUESTS = ("liar", "newcomer", "collapsed")
FAMILIES = {  # module of a workload; each is imported only where it is used
    "cancer-mlp": "tables",
    "cancer-trees": "tables",
    "digits-mlp": "tables",
    "digits-trees": "tables",
    "gru-vowels": "series",
    "lstm-vowels": "series",
    "gru-waveforms": "series",
    "lstm-waveforms": "series",
    "minilm-head": "text",
    "minilm": "text",
    "resnet18": "images",
    "vit": "images",
}


class CountedVault:
    """A vault that counts the bytes that entities send and receive."""

    def __init__(self, vault: Any) -> None:
        self._vault, self.bytes = vault, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    def put(self, data: bytes) -> Any:
        """Store bytes."""
        self.bytes += len(data)
        return self._vault.put(data)

    def get(self, digest: Any) -> bytes:
        """Return bytes."""
        data = self._vault.get(digest)
        self.bytes += len(data)
        return data


class Player:
    """An owner, who trains alone or with an entity, and the best model on the validation data so far."""

    def __init__(self, workload: Workload, site: Site, rounds: int, seed: int, hub: Any, name: str) -> None:
        torch.manual_seed(1000 * seed + site.number)
        self.site, self.seed, self.seconds = site, 1000 * seed + 17 * site.number, 0.0
        self.owner, self.entity, self.best, self.round = workload.owner(site, rounds), None, None, 0
        self.teachers: Any = ()  # of the phase
        self.highest = -1.0
        if hub is not None:
            self.entity = kuber.Entity(
                name,
                model=self.owner.model,
                task=kuber.Task(name="own loops", labels=workload.labels, input_shape=workload.input_shape),
                validation=site.validation,
                class_counts=site.counts,
                hub=hub,
                folder=tempfile.mkdtemp(),
                **self.owner.options,
            )

    def play(self) -> None:
        """Take a decision, if there is an entity, and train for a round."""
        start = time.perf_counter()
        teachers = self.step()
        self.round += 1
        torch.manual_seed(self.seed + 100_000 * self.round)  # dropout and order: the same alone and with KUber
        self.owner.train(teachers, self.entity)
        self.seconds += time.perf_counter() - start
        if self.entity is None:
            self.remember()

    def step(self) -> kuber.Teachers | None:
        """Take a decision about the round that ends."""
        if self.entity is None:
            return None
        teachers = self.teachers = self.entity.step(self.owner.optimizer)
        self.owner.model = self.entity.model
        if self.round > 0:
            self.remember()
        return teachers

    def remember(self) -> None:
        """Keep a copy of the best model on the validation data, as an owner does; of equals the latest."""
        x, y = self.site.validation
        accuracy = (logits(self.owner.judged, x).argmax(1) == y).float().mean().item()
        if accuracy >= self.highest:
            module = self.owner.judged
            self.highest = accuracy
            self.best = module if isinstance(module, kuber.onnx.OnnxModel) else copy.deepcopy(module)

    def answers(self, x: torch.Tensor) -> dict[str, dict[str, list[int]]]:
        """Return the classes predicted by the last and the best model: for the own mixture, and for an even one."""
        prior = torch.tensor(self.site.counts).add(0.5).log()
        result = {}
        for name, module in (("last", self.owner.judged), ("best", self.best)):
            found = logits(module, x)
            result[name] = {"own": found.argmax(1).tolist(), "even": (found - prior).argmax(1).tolist()}
        if self.entity is not None:  # and those of what it offers for use: the model, alone and stacked with teachers
            best = self.entity.best
            if best is not None:
                best.load()
            for name, teachers in (("deployed", None), ("stacked", self.teachers)):
                result[name] = {
                    answer: logits(self.entity.predictor(prior, teachers=teachers), x).argmax(1).tolist()
                    for answer, prior in (("own", "own"), ("even", "uniform"))
                }
        return result


class Guest(Player):
    """An entity that does the others no good, and publishes after each of its rounds."""

    def __init__(self, kind: str, workload: Workload, site: Site, rounds: int, seed: int, hub: Any) -> None:
        x, y = site.train
        if kind == "liar":
            train, validation = ((x, (y + 1) % site.classes) for x, y in (site.train, site.validation))
        else:
            train, validation = (x[:: max(1, len(x) // 10)], y[:: max(1, len(x) // 10)]), site.validation
        self.kind, self.waits = kind, rounds // 2 if kind == "newcomer" else 0
        super().__init__(workload, Site(99, train, validation, site.classes), rounds, seed, hub, kind)

    def play(self) -> None:
        """Take part in a round; the newcomer joins half-way."""
        if self.waits > 0:
            self.waits -= 1
            return
        super().play()
        if self.kind == "collapsed":
            with torch.no_grad():
                for value in self.owner.judged.parameters():
                    value.zero_()
        assert self.entity is not None
        self.entity.publish()


def logits(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return a model's logits for the samples."""
    module.eval()
    with torch.no_grad():
        return torch.cat([module(part).float() for part in x.split(256)])


def measure(name: str, sites: int, seed: int, rounds: int | None, samples: int, guest: str | None) -> dict[str, Any]:
    """Play a workload alone and with KUber; return what was predicted on the test samples, bytes and seconds."""
    draws = np.random.default_rng(seed)
    workload = workload_of(name, draws, samples)
    rounds = rounds or workload.rounds
    parts = divided(workload, sites, draws)
    result: dict[str, Any] = {"workload": name, "sites": sites, "seed": seed, "rounds": rounds, "guest": guest}
    result |= {"labels": workload.labels, "truth": workload.test[1].tolist()}
    result["entities"] = [{"counts": site.counts, "validation": len(site.validation[0])} for site in parts]
    for variant in ("alone", "kuber"):
        registry, vault = kuber.memory_hub()
        counted = CountedVault(vault)
        hub = (registry, counted) if variant == "kuber" else None
        players = [Player(workload, site, rounds, seed, hub, f"site {site.number}") for site in parts]
        if guest and hub:
            players.append(Guest(guest, workload, parts[0], rounds, seed, hub))
        for _ in range(rounds):
            for player in players:
                player.play()
        for player in players:
            player.step()
        for player, entry in zip(players, result["entities"], strict=False):
            entry[variant] = player.answers(workload.test[0])
        for player in players:
            if player.entity is not None:
                player.entity.close()
        result[f"seconds_{variant}"] = fmean(player.seconds for player in players[:sites])
    result["bytes"] = counted.bytes / len(players)
    return result


def workload_of(name: str, draws: np.random.Generator, samples: int) -> Workload:
    """Return a workload by name."""
    module = import_module(f"own_loops_{FAMILIES[name]}")
    workload: Workload = module.WORKLOADS[name](draws, samples)
    return workload


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, help="by default the workload's own number")
    parser.add_argument("--samples", type=int, default=10**9, help="at most, of all sites together")
    parser.add_argument("--guest", choices=GUESTS, nargs="+", default=[], help="one more entity, which does no good")
    parser.add_argument("--folder", type=Path, default=Path("runs/own-loops"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--classes", action="store_true", help="list the classes that change beyond noise")
    parser.add_argument("--single", action="store_true", help="judge entity.best without teachers beside it")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    results = []
    for name in args.workload:
        for sites in args.sites:
            for seed in args.seeds:
                for guest in (None, *args.guest):
                    parts = [name, f"{sites}", guest, args.rounds and f"r{args.rounds}", f"{seed}"]
                    if args.samples < 10**9:
                        parts.insert(-1, f"n{args.samples}")
                    path = args.folder / ("-".join(filter(None, parts)) + ".json")
                    if not path.exists() and not args.table:
                        done = measure(name, sites, seed, args.rounds, args.samples, guest)
                        path.write_text(json.dumps(done))
                        print(f"measured {path}", file=sys.stderr, flush=True)
                    if path.exists():
                        results.append(json.loads(path.read_text()))
    print_figures(results, offer="deployed" if args.single else "stacked", classes=args.classes, as_json=args.json)


if __name__ == "__main__":
    main()
