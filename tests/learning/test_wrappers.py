import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from kuber.learning.wrappers import is_compiled, unwrap


def test_wrappers_are_taken_off_in_any_order():
    plain = nn.Linear(2, 2)
    averaged = AveragedModel(plain)
    compiled = torch.compile(plain, backend="eager")
    assert is_compiled(compiled)
    assert unwrap(plain) is unwrap(compiled) is plain
    assert unwrap(averaged) is averaged.module
    assert unwrap(nn.DataParallel(compiled)) is plain
    assert unwrap(torch.compile(nn.DataParallel(plain), backend="eager")) is plain
    assert unwrap(nn.Sequential(plain)) is not plain
