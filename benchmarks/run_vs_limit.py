"""Throughput of `kuber run`, as a share of the limit of this machine.

The limit is a bare forward/backward/step loop of the same network in its fastest form, one process of one thread on
every core, measured just before and just after the run. While at least two entities are active, the run should be
close to that limit. Samples run forward only (evaluation, teachers) are compared with a bare forward loop. Start-up
(until the first work step) and tail (once fewer than two entities are active) are reported separately.

    python benchmarks/run_vs_limit.py --preset quick
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F

from kuber.entity.state.event_log import read_events
from kuber.experiment.run.runner import runtime_for
from kuber.experiment.scenario import load_scenario
from kuber.learning.architectures import initial_weights
from kuber.learning.evaluation import EVALUATION_BATCH
from kuber.learning.runtime import available_cores, build, keep_freed_memory
from kuber.settings import load


def bare_loop(architecture, runtime, batch, backward, barrier, seconds, rates):
    """Return the samples per second of one process; batches are in memory."""
    keep_freed_memory()
    torch.set_num_threads(1)
    model = build(architecture, initial_weights(architecture, 0), runtime)
    x = torch.randn(batch, *architecture.arguments["input_shape"])
    if runtime.channels_last:
        x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, architecture.arguments["classes"], (batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    model.train(backward)

    def step():
        if not backward:
            with torch.inference_mode(), runtime.autocast():
                model(x)
            return
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    barrier.wait()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    rates.put(steps * batch / (time.perf_counter() - start))


def limit(architecture, runtime, batch, *, backward, seconds=8.0):
    """Return the samples per second of all cores together."""
    context = multiprocessing.get_context("spawn")
    cores = available_cores()
    barrier, rates = context.Barrier(cores), context.Queue()
    arguments = (architecture, runtime, batch, backward, barrier, seconds, rates)
    processes = [context.Process(target=bare_loop, args=arguments) for _ in range(cores)]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def work_spans(events, common_size):
    """Return (start, end, samples trained, samples run forward only) of every work step."""
    for event in events:
        detail = event.detail
        if event.kind in ("trained", "evaluated", "absorbed"):
            trained = detail.get("samples", 0) if event.kind != "evaluated" else 0
            forward = {"evaluated": common_size, "absorbed": detail.get("forward", 0)}.get(event.kind, 0)
            yield event.time - timedelta(seconds=detail["seconds"]), event.time, trained, forward


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = load({"seed": args.seed}, preset=args.preset, environ={})
    scenario = load_scenario(settings)
    with tempfile.TemporaryDirectory() as temporary:
        runtime = runtime_for(Path(temporary), scenario)
        measure = lambda: (  # noqa: E731
            limit(scenario.architectures[0], runtime, settings.batch_size, backward=True),
            limit(scenario.architectures[0], runtime, EVALUATION_BATCH, backward=False),
        )
        before = measure()
        command = [sys.executable, "-m", "kuber", "run", "--preset", args.preset, "--seed", str(args.seed), "--json"]
        started = time.time()
        done = subprocess.run([*command, "--runs-dir", temporary], stdout=subprocess.PIPE, check=True, text=True)
        ended = time.time()
        after = measure()
        events = read_events(Path(json.loads(done.stdout)["run_dir"]) / "events.jsonl")
    train_limit, forward_limit = (mean(pair) for pair in zip(before, after, strict=True))
    spans = list(work_spans(events, len(scenario.common)))
    first = min(start for start, *_ in spans)
    last_of_each = sorted(max(e.time for e in events if e.entity == str(i)) for i in range(settings.num_entities))
    until = last_of_each[-2]
    trained = forward = 0.0
    for start, end, samples, only_forward in spans:
        inside = max(0.0, (min(end, until) - start).total_seconds()) / max((end - start).total_seconds(), 1e-9)
        trained += samples * min(1.0, inside)
        forward += only_forward * min(1.0, inside)
    window = (until - first).total_seconds()
    share = (trained / train_limit + forward / forward_limit) / window
    print(f"limit, training:       {train_limit:8.0f} samples/s (before {before[0]:.0f}, after {after[0]:.0f})")
    print(f"limit, forward only:   {forward_limit:8.0f} samples/s (before {before[1]:.0f}, after {after[1]:.0f})")
    print(f"run, training:         {trained / window:8.0f} samples/s, and {forward / window:.0f}/s forward only")
    print(f"share of the limit:    {share:8.3f} while at least two entities were active ({window:.1f} s)")
    print(f"start-up:              {first.timestamp() - started:8.1f} s")
    print(f"tail:                  {ended - until.timestamp():8.1f} s (last entity, held-out evaluation, report)")


if __name__ == "__main__":
    main()
