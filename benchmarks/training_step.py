"""Effect of each choice behind a training step, one at a time, on one thread.

Every variant runs in a process of its own, several times, and is compared with the variant that KUber uses in the
same turn, because the speed of machines drifts. Prints images per second and the median ratio to that variant.

    python benchmarks/training_step.py --turns 5
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median

import torch
import torch.nn.functional as F

from kuber.learning.architectures import describe, initial_weights
from kuber.learning.evaluation import compute_logits
from kuber.learning.runtime import Runtime, build, keep_freed_memory
from kuber.learning.training import Training, train

ARCHITECTURE = describe("cnn", {"input_shape": (3, 32, 32), "classes": 10})
RUNTIME = Runtime(device="cpu", precision="float32", threads=1, channels_last=True)
SECONDS = 4.0
TRAINING = ("as it is", "bare loop", "plain memory format", "freed memory given back", "two threads")
FORWARD = (32, 64, 128, 256, 512)


def batch(runtime, size=64):
    return runtime.place(torch.randn(size, 3, 32, 32)), torch.randint(0, 10, (size,))


def bare(network, x, y):
    """A bare training step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    network.train()
    while True:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        yield len(x)


def measure(variant):
    """Return the images per second of one variant, after a warm-up."""
    torch.set_num_threads(2 if variant == "two threads" else 1)
    if variant != "freed memory given back":
        keep_freed_memory()
    runtime = replace(RUNTIME, channels_last=variant != "plain memory format")
    network = build(ARCHITECTURE, initial_weights(ARCHITECTURE, 0), runtime)
    if variant.isdecimal():
        data = batch(runtime, int(variant))
        count = max(1, 1024 // int(variant))
        work = lambda: compute_logits(network, [data] * count, runtime=runtime).shape[0]  # noqa: E731
    elif variant == "bare loop":
        steps = bare(network, *batch(runtime))
        work = lambda: sum(next(steps) for _ in range(10))  # noqa: E731
    else:
        data = batch(runtime)
        settings = Training(epochs=1, learning_rate=0.01)
        work = lambda: train(network, lambda: [data] * 10, settings=settings, runtime=runtime).samples  # noqa: E731
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += work()
    return done / (time.perf_counter() - start)


def compare(variants, turns):
    """Print for each variant the median images per second, and the median ratio to the first one of the same turn."""
    rates = {variant: [] for variant in variants}
    for _ in range(turns):
        for variant in variants:
            done = subprocess.run(
                [sys.executable, __file__, "--one", variant], capture_output=True, check=True, text=True
            )
            rates[variant].append(float(done.stdout))
    for variant, own in rates.items():
        ratio = median(a / b for a, b in zip(own, rates[variants[0]], strict=True))
        print(f"{variant:26} {median(own):8.0f} images/s   ratio {ratio:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data:
        print(measure(args.data))
        return
    print("training, batch 64")
    compare(TRAINING, args.turns)
    print("forward only, by batch size")
    compare([str(size) for size in FORWARD], args.turns)


if __name__ == "__main__":
    main()
