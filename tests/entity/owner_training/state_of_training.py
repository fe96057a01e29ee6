"""All that an owner's training has, to compare it bit for bit."""

import random

import numpy as np
import torch
from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")


def state_of(owner) -> dict:
    """Return the state of an owner's training as nested dicts, lists and tensors."""
    modules = dict(owner.model.named_modules())
    return {
        "parameters": {
            name: {"value": tensor.detach(), "trained": tensor.requires_grad, "gradient": tensor.grad}
            for name, tensor in owner.model.named_parameters(remove_duplicate=False)
        },
        "buffers": dict(owner.model.named_buffers(remove_duplicate=False)),
        "modes": {name: module.training for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "activations": {name: tensors_of(module) for name, module in modules.items()},
        "hooks": {name: [len(getattr(module, kind)) for kind in HOOKS] for name, module in modules.items()},
        "optimizer": owner.optimizer.state_dict(),
        "rates": [group["lr"] for group in owner.optimizer.param_groups],
        "scheduler": None if owner.scheduler is None else owner.scheduler.state_dict(),
        "ema": None if owner.ema is None else owner.ema.state_dict(),
        "scaler": owner.scaler.state_dict(),
        "random": [torch.get_rng_state(), list(random.getstate()[1]), np.random.get_state()[1].tolist()],
        "switches": [
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.backends.mha.get_fastpath_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        ],
    }


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in vars(module).items() if isinstance(value, Tensor)}


def differences(first, second, path="") -> list[str]:
    """Return the paths at which two states differ."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.dtype == second.dtype and first.shape == second.shape
        if same and torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0)):
            return []
        return [path]
    if isinstance(first, dict) and isinstance(second, dict):
        unlike = [f"{path}/{key}" for key in sorted(map(str, first.keys() ^ second.keys()))]
        return unlike + [
            line for key in first if key in second for line in differences(first[key], second[key], f"{path}/{key}")
        ]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        return [
            line
            for place, pair in enumerate(zip(first, second, strict=True))
            for line in differences(*pair, f"{path}/{place}")
        ]
    return [] if first == second else [path]
