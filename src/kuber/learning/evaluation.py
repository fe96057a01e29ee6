"""Inference: the logits of a network, and its correct answers per class."""

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.errors import CorruptKnowledgeError
from kuber.learning.random_state import kept_generators, kept_random_state
from kuber.learning.runtime import Runtime
from kuber.learning.wrappers import is_compiled

_NOT_FINITE = "The network returns logits that are not finite; do not learn from it."
_COLLECTIONS = (list, deque, dict, OrderedDict, defaultdict)  # that a forward pass may fill
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_GENERATORS = (torch.Generator, np.random.Generator, random.Random)
EVALUATION_BATCH = 128  # samples; fastest on one core: 64 and 256 measured 15 % slower, 512 measured 38 %


def compute_logits(network: nn.Module, batches: Iterable[tuple[Tensor, ...]], *, runtime: Runtime) -> Tensor:
    """Return the network's logits for all samples: float32 of shape (samples, classes), on the CPU.

    Raises CorruptKnowledgeError when one is not finite; huge but finite weights can cause that.
    """
    rows = []
    with evaluation_mode(network):
        for x, *_ in batches:
            with runtime.autocast():
                rows.append(network(x).float().cpu())
    logits = torch.cat(rows)
    if not has_valid_logits(logits):
        raise CorruptKnowledgeError(_NOT_FINITE)
    return logits


def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Any, ...]],
    *,
    classes: int,
    test_set: Digest,
    runtime: Runtime,
    strict: bool = False,
) -> Evaluation:
    """Count the correct answers per class on the test set with the digest `test_set`, and keep which they are.

    With `strict`, for models of other entities, raises CorruptKnowledgeError when a logit is not finite; without,
    such an answer is wrong. The forward pass has the precision of training: docs/learning.md says how bfloat16
    changes the counts.
    """
    with evaluation_mode(network):
        labels, answers = [], []
        for x, y, *_ in batches:
            with runtime.autocast():
                logits = network(x).to(y.device)  # a network on several devices may return them on another
            finite = (logits < torch.inf) & (logits.amax(1, keepdim=True) > -torch.inf)
            if strict and not finite.all():
                raise CorruptKnowledgeError(_NOT_FINITE)
            labels.append(y)
            answers.append((logits.argmax(1) == y) & finite.all(1))
    right = _bits_by_class(torch.cat(labels).cpu().numpy(), torch.cat(answers).cpu().numpy(), classes)
    total = np.bincount(torch.cat(labels).cpu().numpy(), minlength=classes)
    correct = tuple(bits.bit_count() for bits in right)
    return Evaluation(test_set=test_set, correct=correct, total=tuple(total.tolist()), right=right)


def _bits_by_class(labels: Any, answers: Any, classes: int) -> tuple[int, ...]:
    """Return the right answers to the samples of each class, in their order, as the bits of one number."""
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(classes + 1))
    packed = (np.packbits(answers[order][start:end], bitorder="little") for start, end in pairwise(ends))
    return tuple(int.from_bytes(bits.tobytes(), "little") for bits in packed)


def labelled_logits(
    network: nn.Module, batches: Iterable[tuple[Any, ...]], *, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Return the network's logits, float32 of shape (samples, classes), and the labels, both on the CPU.

    Logits may be not finite: `correct_after` takes such answers as wrong, as `evaluate` does.
    """
    logits, labels = [], []
    with evaluation_mode(network):
        for x, y, *_ in batches:
            with runtime.autocast():
                logits.append(network(x).float().cpu())
            labels.append(y.cpu())
    return torch.cat(logits), torch.cat(labels)


def correct_after(logits: Tensor, labels: Tensor, shifts: Tensor) -> Tensor:
    """Return the correct answers per class after each shift is added to logits, shape (samples, classes).

    Shifts, and the counts returned, have shape (shifts, classes).
    """
    finite = ((logits < torch.inf) & (logits.amax(1, keepdim=True) > -torch.inf)).all(1)
    rows = [labels[((logits + shift).argmax(1) == labels) & finite] for shift in shifts]
    return torch.stack([torch.bincount(right, minlength=shifts.shape[1]) for right in rows])


def has_valid_logits(logits: Tensor) -> bool:
    """Return whether logits, shape (samples, classes), are finite, or minus infinity for some unknown classes."""
    return bool(((logits < torch.inf) & (logits.amax(1, keepdim=True) > -torch.inf)).all())


@contextmanager
def evaluation_mode(network: nn.Module, *, autocast: bool = False) -> Iterator[None]:
    """Run an owner's network in evaluation mode inside the `with` block, and leave it as it was.

    The modes are set one by one, not by `train` and `eval`, which owners override. At the end, also on an exception,
    each module has its own mode, attributes (such as a kept activation, or a list of them) and buffers again, and the
    random generators their states. Inside there are no gradients, no compiled forward (a mode more would compile it
    anew) and, unless `autocast` keeps it, no autocast of the owner's.
    """
    modules = list(network.modules())
    attributes = [(module, dict(vars(module))) for module in modules if not isinstance(module, ScriptModule)]
    scripted = [(module, module.training) for module in modules if _has_script_mode(module)]
    buffers = [(module._buffers, dict(module._buffers)) for module, _ in attributes]
    collections = _collections_in(attributes)
    copied = [buffer for buffer in network.buffers() if not buffer.is_quantized]  # these never change, and some
    copies = [(buffer, _version(buffer), buffer.detach().clone()) for buffer in copied]  # have no copy
    generators = [value for _, state in attributes for value in state.values() if isinstance(value, _GENERATORS)]
    with ExitStack() as stack:
        stack.enter_context(kept_random_state())
        stack.enter_context(kept_generators(*generators))
        stack.enter_context(torch.inference_mode(False))  # owners keep tensors in modules
        stack.enter_context(torch.no_grad())
        stack.enter_context(_own_casts(network, autocast=autocast))
        try:
            for module in modules:
                if hasattr(module, "training"):
                    module.training = False
                if vars(module).get("_compiled_call_impl") is not None:
                    vars(module)["_compiled_call_impl"] = None
                if is_compiled(module):
                    vars(module)["forward"] = vars(module)["_modules"]["_orig_mod"].__call__
            yield
        finally:
            for module, state in attributes:
                for name in vars(module).keys() - state.keys():
                    del vars(module)[name]
                vars(module).update(state)
            for now, before in buffers:
                now.clear()
                now.update(before)
            for now, before in collections:
                _put_back(now, before)
            for buffer, version, copy in copies:
                if _version(buffer) != version:
                    buffer.data.copy_(copy)
            for module, training in scripted:
                module.training = training


@contextmanager
def training_mode(network: nn.Module) -> Iterator[None]:
    """Train the network inside the `with` block; each module gets its own mode back.

    Modules that are held in evaluation mode, such as frozen BatchNorm layers, stay so in a network in training mode.
    """
    modes = [(module, module.training) for module in network.modules() if hasattr(module, "training")]
    try:
        if not network.training:
            network.train()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _own_casts(network: nn.Module, *, autocast: bool) -> Iterator[None]:
    """Keep the owner's autocast out, unless `autocast`, and what is cast here out of the owner's."""
    tensors = (*network.parameters(), *network.buffers())
    kinds = [kind for kind in {"cpu", *(tensor.device.type for tensor in tensors[:1])} if _is_cast(kind)]
    if kinds:
        torch.clear_autocast_cache()  # it names tensors, not their values, and may hold casts without gradient
    try:
        with ExitStack() as stack:
            for kind in kinds:
                if not autocast:
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        if kinds:
            torch.clear_autocast_cache()


def _is_cast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _has_script_mode(module: nn.Module) -> bool:
    return isinstance(module, ScriptModule) and hasattr(module, "training")  # a frozen one has no mode


def _version(tensor: Tensor) -> int | None:
    """Return the number of changes in place of a tensor; None for one that does not count them."""
    return None if tensor.is_inference() else tensor._version


def _collections_in(attributes: Iterable[tuple[nn.Module, dict[str, Any]]]) -> list[tuple[Any, Any]]:
    """Return the lists and dicts that owners keep in their modules, each with a copy."""
    values = [value for _, state in attributes for name, value in state.items() if name not in _OF_EVERY_MODULE]
    return [(value, value.copy()) for value in values if type(value) in _COLLECTIONS]


def _put_back(now: Any, before: Any) -> None:
    """Restore a list or dict if it holds activations; others, such as an owner's counts of calls, keep growing."""
    if not any(isinstance(value, Tensor) for value in (now.values() if isinstance(now, dict) else now)):
        return
    now.clear()
    if isinstance(now, dict):
        now.update(before)
    else:
        now.extend(before)
