"""A bare training loop against the same loop with `kuber.Entity` and no teachers: time and peak memory.

Both loops run in turn in one process, on one thread; a phase is --steps steps. Times are CPU seconds, with those of
the process that checks graphs, because other work on the machine would count otherwise. The time of `entity.step` is
divided into evaluation, publishing (export, check of the graph, transfer to a hub in memory) and the rest: copies for
a phase that is undone, decisions, state on disk. Peak memory is that of a process of its own for each variant, in
copies of the weights beyond the bare loop; what the hub in memory keeps is not counted.

    python benchmarks/own_loop_overhead.py --parameters 1000000 --steps 300
    python benchmarks/own_loop_overhead.py --parameters 100000000 --steps 10 --phases 2
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from statistics import median

import torch
from torch import nn

import kuber
from kuber.strategies import Exchange

INPUT, CLASSES, BATCH, VALIDATION = 64, 10, 32, 512
VARIANTS = ("bare", "step", "weights", "weights and graph")


def clock():
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class Always(Exchange):
    """Exchange, but publish after each phase."""

    def publishes(self, situation):
        return True


class Clocked:
    """A registry that notes when a publication is done."""

    def __init__(self, registry):
        self._registry = registry
        self.published_at = 0.0

    def __getattr__(self, name):
        return getattr(self._registry, name)

    def publish(self, *args, **kwargs):
        try:
            return self._registry.publish(*args, **kwargs)
        finally:
            self.published_at = clock()


class Loop:
    """A training loop, bare or with an entity."""

    def __init__(self, variant, parameters, steps):
        width = round(math.sqrt(parameters / 2))
        draws = torch.Generator().manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(INPUT, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, CLASSES),
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.x = torch.randn(VALIDATION, INPUT, generator=draws)
        self.y = torch.randint(0, CLASSES, (VALIDATION,), generator=draws)
        self.steps = steps
        self.bytes = sum(4 * parameter.numel() for parameter in self.model.parameters())
        self.entity = None if variant == "bare" else self._enter(variant)

    def _enter(self, variant):
        registry, vault = kuber.memory_hub()
        self.registry, self.vault, self.evaluation, self.began = Clocked(registry), vault, 0.0, 0.0
        return kuber.Entity(
            "one",
            model=self.model,
            task=kuber.Task(name="t", labels=tuple(map(str, range(CLASSES))), input_shape=(INPUT,)),
            evaluate=self._evaluate,
            hub=(self.registry, vault),
            folder=tempfile.mkdtemp(),
            strategy=Always(),
            formats=None if variant == "weights and graph" else ("weights",),
            publishing="never" if variant == "step" else self._approve,
        )

    def _evaluate(self, network):
        start = clock()
        with torch.no_grad():
            right = network(self.x).argmax(1) == self.y
        correct = torch.bincount(self.y[right], minlength=CLASSES).tolist()
        total = torch.bincount(self.y, minlength=CLASSES).tolist()
        self.evaluation += clock() - start
        return kuber.Evaluation(test_set=kuber.Digest.of(b"v"), correct=tuple(correct), total=tuple(total))

    def _approve(self, evaluation, round):
        self.began = clock()
        return True

    def phase(self):
        """Train for a phase; return the seconds of steps, of evaluation, of publishing, and of the rest."""
        evaluation = publishing = exchange = 0.0
        start = clock()
        if self.entity is not None:
            self.evaluation, self.began = 0.0, 0.0
            self.entity.step(self.optimizer)
            evaluation = self.evaluation
            publishing = self.registry.published_at - self.began if self.began else 0.0
            exchange = clock() - start - evaluation - publishing
        start = clock()
        for step in range(self.steps):
            rows = slice(step * BATCH % VALIDATION, step * BATCH % VALIDATION + BATCH)
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()
        return clock() - start, evaluation, publishing, exchange


def compare(args, variant):
    """Print the time of the loop with an entity as a ratio to the bare one, and what its parts take."""
    torch.set_num_threads(1)
    bare, own = Loop("bare", args.parameters, args.steps), Loop(variant, args.parameters, args.steps)
    for loop in (bare, own, bare, own):
        loop.phase()  # warm-up; the first publication
    pairs = []
    for turn in range(args.phases):
        order = (bare, own) if turn % 2 else (own, bare)
        times = {loop: loop.phase() for loop in order}
        pairs.append((times[bare][0], *times[own]))
    parts = [median(column) for column in zip(*pairs, strict=True)]
    steps = median(pair[1] / pair[0] for pair in pairs)
    whole = median((pair[1] + pair[4]) / pair[0] for pair in pairs)
    print(
        f"{variant:18} steps {steps:.3f}, with the rest of entity.step {whole:.3f} of the bare loop; "
        f"a phase of {args.steps} steps {parts[0]:.2f} s bare; evaluation {parts[2]:.3f} s, "
        f"publishing {parts[3]:.3f} s, rest {parts[4]:.3f} s",
        flush=True,
    )


def peak(args, variant):
    """Return the peak memory of a variant in bytes, less what the hub keeps, and the bytes of its weights."""
    loop = Loop(variant, args.parameters, args.steps)
    for _ in range(3):
        loop.phase()
    kept = 0
    if loop.entity is not None:
        records = loop.registry.discover(kuber.Query()).items
        kept = sum(artifact.size for record in records for artifact in record.artifacts.values())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - kept, loop.bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=300, help="in a phase")
    parser.add_argument("--phases", type=int, default=7, help="pairs of phases that are compared")
    parser.add_argument("--only", choices=VARIANTS[1:], action="append", help="a variant; by default all")
    parser.add_argument("--one", choices=("time", "peak"), help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one == "time":
        compare(args, args.variant)
        return
    if args.one == "peak":
        print(json.dumps(peak(args, args.variant)))
        return
    sizes = [f"--parameters={args.parameters}", f"--steps={args.steps}", f"--phases={args.phases}"]
    variants = args.only or VARIANTS[1:]
    for variant in variants:
        subprocess.run([sys.executable, __file__, *sizes, "--one=time", f"--variant={variant}"], check=True)
    peaks = {}
    for variant in ("bare", *variants):
        command = [sys.executable, __file__, sizes[0], "--steps=2", "--one=peak", f"--variant={variant}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[variant], weights = json.loads(done.stdout)
    for variant in variants:
        copies = (peaks[variant] - peaks["bare"]) / weights
        print(f"{variant:18} peak memory: {copies:.1f} copies of the weights beyond the bare loop", flush=True)


if __name__ == "__main__":
    main()
