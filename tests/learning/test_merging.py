import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kuber.learning.architectures import describe, initial_weights, make_network
from kuber.learning.merging import average, merge


def model(*values: float, steps: int = 3):
    return {"w": torch.tensor(values), "steps": torch.tensor(steps)}


def test_models_are_weighted_by_their_sizes():
    merged = average([model(0.0, 8.0), model(4.0, 0.0)], [3, 1])
    assert merged["w"].tolist() == [1.0, 6.0]


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=7),
)
def test_the_average_of_equal_models_equals_them_bit_for_bit(values, sizes):
    merged = average([model(*values) for _ in sizes], sizes)
    assert merged["w"].numpy().tobytes() == model(*values)["w"].numpy().tobytes()
    assert merged["steps"].item() == 3


def test_one_model_is_its_own_average():
    assert torch.equal(average([model(0.1, -2.5)], [7])["w"], model(0.1, -2.5)["w"])


def test_whole_numbers_are_rounded_and_stay_whole():
    merged = average([model(0.0, steps=3), model(0.0, steps=6)], [1, 1])
    assert merged["steps"].dtype == torch.int64
    assert merged["steps"].item() in (4, 5)


def test_pooled_statistics_are_those_of_the_mixture():
    """Two BatchNorms that saw a part of the samples each have, pooled, the mean and variance of all samples."""
    samples = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) * 3
    samples[200:] += 7
    halves = samples[:100], samples[100:]
    models = [
        {"n.running_mean": half.mean(0), "n.running_var": half.var(0, unbiased=False), "n.weight": half[0]}
        for half in halves
    ]
    merged = merge(models, [100, 300])
    torch.testing.assert_close(merged["n.running_mean"], samples.mean(0))
    torch.testing.assert_close(merged["n.running_var"], samples.var(0, unbiased=False))
    torch.testing.assert_close(merged["n.weight"], (halves[0][0] + 3 * halves[1][0]) / 4)


def test_merging_equal_networks_changes_no_bit():
    weights = initial_weights(describe("cnn", {"input_shape": (3, 8, 8), "classes": 4}), 0)
    network = make_network("cnn", {"input_shape": (3, 8, 8), "classes": 4})
    network.load_state_dict(weights)
    network(torch.randn(16, 3, 8, 8))  # statistics that are not round numbers
    weights = network.state_dict()
    merged = merge([weights, weights, weights], [3, 1.7, 0.2])
    assert all(merged[name].numpy().tobytes() == weights[name].numpy().tobytes() for name in weights)


@pytest.mark.parametrize(
    "mask",
    [torch.tensor([True, False]), torch.tensor([1, 0], dtype=torch.uint8), torch.tensor([3, 5]), torch.tensor(True)],
    ids=str,
)
def test_masks_and_tables_of_whole_numbers_are_our_own(mask):
    other = ~mask if mask.dtype == torch.bool else mask + 7
    merged = average([{"mask": mask}, {"mask": other}], [1, 3])
    assert merged["mask"].dtype == mask.dtype
    assert torch.equal(merged["mask"], mask)


def test_values_that_are_not_finite_stay_and_others_are_averaged():
    ours, theirs = torch.tensor([-torch.inf, 0.0]), torch.tensor([-torch.inf, 4.0])
    assert average([{"m": ours}, {"m": theirs}], [1, 1])["m"].tolist() == [-torch.inf, 2.0]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_dtypes_that_do_not_travel_are_our_own(dtype):
    ours = torch.ones(2).to(dtype)
    assert average([{"m": ours}, {"m": torch.zeros(2).to(dtype)}], [1, 1])["m"] is ours


def test_a_variance_without_a_mean_is_averaged():
    merged = merge([{"scale.running_var": torch.tensor([1.0])}, {"scale.running_var": torch.tensor([3.0])}], [1, 1])
    assert merged["scale.running_var"].tolist() == [2.0]
