import os
import pickle
import random
from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch

from kuber.errors import SettingsError
from kuber.learning import runtime as module
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.runtime import available_cores, build, choose_runtime, cpu_quota

CNN = describe("cnn", {"input_shape": (1, 8, 8), "classes": 10})
MLP = describe("mlp", {"input_shape": (1, 8, 8), "classes": 10})


@pytest.fixture
def speeds(monkeypatch):
    """Set whether the device has bfloat16, and how fast each precision is; return the precisions probed."""

    def pretend(*, capable: bool, **speed: float) -> list[str]:
        probed: list[str] = []

        def measure(runtime, architecture, batch_size):
            probed.append(runtime.precision)
            return speed[runtime.precision]

        monkeypatch.setattr(module, "_has_bfloat16", lambda device: capable)
        monkeypatch.setattr(module, "_samples_per_second", measure)
        return probed

    return pretend


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_given_precision_is_used_without_a_probe(precision, speeds):
    probed = speeds(capable=False)
    chosen = choose_runtime(device="cpu", precision=precision, threads=3, architecture=CNN, batch_size=64, entities=4)
    assert (chosen.device, chosen.precision, chosen.threads) == ("cpu", precision, 3)
    assert probed == []


@pytest.mark.parametrize(("faster", "expected"), [(1.3, "bfloat16"), (1.1, "bfloat16"), (1.09, "float32")])
def test_bfloat16_is_chosen_if_it_is_faster(faster, expected, speeds):
    probed = speeds(capable=True, float32=1000.0, bfloat16=1000.0 * faster)
    assert choose_runtime(device="cpu", architecture=CNN, batch_size=64).precision == expected
    assert sorted(set(probed)) == ["bfloat16", "float32"]


def test_bfloat16_is_not_probed_where_it_would_be_emulated(speeds):
    probed = speeds(capable=False, float32=1.0, bfloat16=1000.0)
    assert choose_runtime(device="cpu", architecture=CNN, batch_size=64).precision == "float32"
    assert probed == []


def test_the_probe_really_computes_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_has_bfloat16", lambda device: True)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # as conftest.py does, whatever other tests have done since
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    chosen = choose_runtime(device="cpu", threads=2, architecture=CNN, batch_size=8)
    assert chosen.precision in ("float32", "bfloat16")
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_the_probe_is_bounded(monkeypatch):
    """After two steps of warm-up it stops with the first step beyond its time."""
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))
    runtime = module.Runtime(device="cpu", precision="float32", threads=1, channels_last=True)
    assert module._samples_per_second(runtime, CNN, 4) > 0
    assert next(ticks) <= 50


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_missing_device_is_refused_in_one_sentence(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=rf"^torch finds no {device} device .*--device cpu or auto\.$"):
        choose_runtime(device=device, architecture=CNN, batch_size=64)


def test_an_unknown_device_is_refused_the_same_way():
    with pytest.raises(SettingsError, match="torch finds no abacus device"):
        choose_runtime(device="abacus", architecture=CNN, batch_size=64)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_available_device(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    chosen = choose_runtime(precision="float32", architecture=CNN, batch_size=64)
    assert chosen.device == expected


@pytest.mark.parametrize(
    ("cores", "entities", "threads"), [(8, 3, 2), (8, 8, 1), (2, 4, 1), (2, 1, 2), (1, 1, 1), (64, 4, 16)]
)
def test_without_a_number_of_threads_the_cores_are_divided(cores, entities, threads, monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    chosen = choose_runtime(device="cpu", precision="float32", architecture=CNN, batch_size=64, entities=entities)
    assert chosen.threads == threads


def test_only_networks_with_convolutions_use_channels_last():
    layouts = [
        choose_runtime(device="cpu", precision="float32", architecture=a, batch_size=64).channels_last
        for a in (CNN, MLP)
    ]
    assert layouts == [True, False]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_cores_are_those_of_the_affinity(monkeypatch):
    monkeypatch.setattr(module, "cpu_quota", lambda: inf)
    before = os.sched_getaffinity(0)
    assert available_cores() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.0, 1), (1.5, 2), (3.0, 3), (100.0, 4), (inf, 4)])
def test_cores_are_at_most_the_quota_rounded_up(quota, cores, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, inf),
        ({"cpu.max": "max 100000\n"}, inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "what\n"}, inf),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, inf),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
    ],
)
def test_the_quota_of_the_control_group(files, quota, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == quota


def test_a_built_network_shares_no_memory_with_its_weights(runtime):
    weights = initial_weights(CNN, 0)
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    network = build(CNN, weights, runtime)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(1)
    assert all(torch.equal(weights[name], kept[name]) for name in weights)
    assert not any(tensor.requires_grad for tensor in weights.values())


def test_building_leaves_the_global_randomness_unchanged(runtime):
    before = torch.get_rng_state()
    build(CNN, initial_weights(CNN, 0), runtime)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_and_kernels_have_the_same_layout(runtime):
    images = torch.zeros(2, 3, 4, 4)
    assert runtime.place(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(runtime.place(images), images)
    kernel = build(CNN, initial_weights(CNN, 0), runtime).features[4].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    plain = replace(runtime, channels_last=False)
    assert plain.place(images).is_contiguous()
    assert build(CNN, initial_weights(CNN, 0), plain).features[4].weight.is_contiguous()
    assert runtime.place(torch.tensor([1, 2])).tolist() == [1, 2]


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_that_of_the_forward_pass(precision, dtype, runtime):
    runtime = replace(runtime, precision=precision)
    network = build(MLP, initial_weights(MLP, 0), runtime)
    with runtime.autocast():
        assert network(torch.zeros(2, 1, 8, 8)).dtype == dtype
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_a_runtime_can_be_pickled(runtime):
    assert pickle.loads(pickle.dumps(runtime)) == runtime


class SelfInitialised(torch.nn.Module):
    """Initialise in each of the ways that torch offers, and use the results."""

    def __init__(self, classes):
        super().__init__()
        self.w = torch.nn.init.normal_(tensor=torch.nn.Parameter(torch.empty(classes, 4)))
        self.b = torch.nn.Parameter(torch.nn.init.zeros_(torch.empty(classes)))
        torch.nn.init.orthogonal_(self.w, gain=2.0)
        torch.nn.init.trunc_normal_(self.w, std=0.1)

    def forward(self, x):
        return x @ self.w.T + self.b


def test_a_network_that_initialises_itself_gets_the_given_weights(monkeypatch, runtime):
    monkeypatch.setattr(module, "make_network", lambda name, arguments: SelfInitialised(**arguments))
    weights = {"w": torch.arange(12.0).reshape(3, 4), "b": torch.ones(3)}
    network = build(replace(MLP, name="its-own", arguments={"classes": 3}), weights, runtime)
    assert {name: tensor.tolist() for name, tensor in network.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in weights.items()
    }
    assert all(parameter.requires_grad for parameter in network.parameters())
    plain = SelfInitialised(3)  # outside of `build` torch initialises as usual
    assert plain.w.abs().sum() > 0
