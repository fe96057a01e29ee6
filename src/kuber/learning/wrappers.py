"""Wrappers of torch around a module: the module inside them."""

import sys

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile, DataParallel, DistributedDataParallel and AveragedModel, nested too."""
    while True:
        if is_compiled(model):
            model = vars(model)["_modules"]["_orig_mod"]
        elif isinstance(model, DataParallel | DistributedDataParallel | AveragedModel):
            model = model.module
        else:
            return model


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module is what `torch.compile(module)` returns."""
    # Not imported: loading it takes seconds, and before there is no compiled module.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(module, dynamo.OptimizedModule)


def plain_name(name: str) -> str:
    """Return the name of a tensor or module as it is without `torch.compile` around a module on its way."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
