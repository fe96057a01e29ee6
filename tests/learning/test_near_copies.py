"""Near copies of a model."""

import pytest
import torch

from kuber.learning.near_copies import is_near_copy


def model(seed, base=None, size=1.0):
    draws = torch.Generator().manual_seed(seed)
    noise = {"w": torch.randn(20, 30, generator=draws), "b": torch.randn(20, generator=draws)}
    return {name: (0 if base is None else base[name]) + size * tensor for name, tensor in noise.items()}


@pytest.mark.parametrize(("size", "near"), [(1e-6, True), (1e-3, True), (0.02, True), (0.3, False)])
def test_noise_makes_no_other_model(size, near):
    own, trained = model(0), model(1, model(0), size=0.5)
    assert is_near_copy(trained, model(2, trained, size), own) is near


def test_models_of_different_data_are_no_copies():
    common = model(0)
    first, second, own = (model(seed, common, size=0.01) for seed in (1, 2, 3))
    assert not is_near_copy(first, second, own)
    assert is_near_copy(first, first, own)


def test_without_own_tensors_only_nearly_equal_models_are_copies():
    first = model(1)
    assert is_near_copy(first, model(2, first, 1e-5), {})
    assert not is_near_copy(first, model(2, first, 0.01), {})
    assert not is_near_copy(first, {"w": first["w"]}, {})
    assert not is_near_copy({}, {}, {})
