"""Hyperparameters: those that change the answers, and none besides."""

import functools
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kuber.learning.hyperparameters import HYPERPARAMETERS, hyperparameters


class Net(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.head = nn.Linear(4, 2)
        for name, value in attributes.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.ReLU(), nn.SiLU()),
        (nn.GELU(), nn.GELU("tanh")),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
        (nn.LayerNorm(4, eps=1e-5), nn.LayerNorm(4, eps=1e-3)),
        (nn.BatchNorm1d(4, eps=1e-5), nn.BatchNorm1d(4, eps=1e-3)),
        (nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)),
        (nn.GroupNorm(2, 8), nn.GroupNorm(4, 8)),
        (nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 4)),
        (nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)),
        (nn.TransformerEncoderLayer(8, 2, activation="relu"), nn.TransformerEncoderLayer(8, 2, activation="gelu")),
        (nn.TransformerEncoderLayer(8, 2), nn.TransformerEncoderLayer(8, 2, norm_first=True)),
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, padding=1)),
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, stride=2)),
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, dilation=2)),
        (nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
        (nn.MaxPool2d(2), nn.AvgPool2d(2)),
        (nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2)),
        (nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")),
        (nn.Softmax(dim=1), nn.Softmax(dim=-1)),
        (nn.RNN(4, 4), nn.RNN(4, 4, nonlinearity="relu")),
        (Net(act=F.relu), Net(act=F.silu)),
        (Net(act=torch.tanh), Net(act=torch.sigmoid)),
        (Net(act=functools.partial(F.gelu, approximate="tanh")), Net(act=F.gelu)),
        (torch.jit.script(nn.Conv2d(3, 4, 3)), torch.jit.script(nn.Conv2d(3, 4, 3, stride=2))),
        (torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())), torch.fx.symbolic_trace(nn.Sequential(nn.Tanh()))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_these_differ(one, other):
    assert hyperparameters(nn.Sequential(one)) != hyperparameters(nn.Sequential(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Dropout(0.1), nn.Dropout(0.9)),
        (nn.Dropout(0.1), nn.Identity()),
        (nn.ReLU(), nn.ReLU(inplace=True)),
        (nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=0.9).eval()),
        (nn.BatchNorm2d(4), nn.SyncBatchNorm(4)),
        (nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, dropout=0.5)),
        (nn.TransformerEncoderLayer(8, 2, dropout=0.1), nn.TransformerEncoderLayer(8, 2, dropout=0.3)),
        (nn.LSTM(4, 4, num_layers=2), nn.LSTM(4, 4, num_layers=2, dropout=0.3)),
        (nn.MaxPool2d(2), nn.MaxPool2d((2, 2))),
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, (3, 3)).requires_grad_(requires_grad=False)),
        (nn.Embedding(9, 4), nn.Embedding(9, 4, scale_grad_by_freq=True)),
        (Net(site="ward 7", calls=12, rate=0.3, path=("a", "b")), Net(site="ward 8", calls=0, seed=5)),
        (Net(loss=nn.CrossEntropyLoss()), Net()),
        (Net(loss_function=F.cross_entropy), Net(loss_function=F.mse_loss)),
        (Net(log=print, note=lambda: 0), Net()),
        (Net(metrics=[1, 2]), Net(metrics=[3])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_these_do_not(one, other):
    assert hyperparameters(nn.Sequential(one)) == hyperparameters(nn.Sequential(other))


def test_names_are_those_without_torch_compile():
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    inner = nn.Sequential(*(torch.compile(module, backend="eager") for module in plain))
    assert hyperparameters(plain) == hyperparameters(inner)


def test_each_name_in_the_list_is_one_of_torch():
    """A name that torch does not have would be a typing mistake."""
    modules = [module for module in vars(nn.modules).values() if inspect.ismodule(module)]
    source = "\n".join(map(inspect.getsource, modules))
    assert [name for name in HYPERPARAMETERS if f"self.{name}" not in source] == []
