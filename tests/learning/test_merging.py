import torch
from hypothesis import given
from hypothesis import strategies as st

from kuber.learning.merging import average


def model(*values: float, steps: int = 3):
    return {"w": torch.tensor(values), "steps": torch.tensor(steps)}


def test_models_are_weighted_by_their_sizes():
    merged = average([model(0.0, 8.0), model(4.0, 0.0)], [3, 1])
    assert merged["w"].tolist() == [1.0, 6.0]


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=7),
)
def test_equal_models_come_out_bit_for_bit_as_they_were(values, sizes):
    merged = average([model(*values) for _ in sizes], sizes)
    assert merged["w"].numpy().tobytes() == model(*values)["w"].numpy().tobytes()
    assert merged["steps"].item() == 3


def test_one_model_is_its_own_average():
    assert torch.equal(average([model(0.1, -2.5)], [7])["w"], model(0.1, -2.5)["w"])


def test_whole_numbers_are_rounded_and_stay_whole():
    merged = average([model(0.0, steps=3), model(0.0, steps=6)], [1, 1])
    assert merged["steps"].dtype == torch.int64
    assert merged["steps"].item() in (4, 5)
