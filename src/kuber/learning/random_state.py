"""State of the random generators that code draws from without naming them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Restore the state of Python's, numpy's and torch's global generators at the end, on an exception too.

    So an owner's training draws the same numbers with KUber and without.
    """
    python, array, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if on_cuda else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextmanager
def kept_generators(*generators: Any) -> Iterator[None]:
    """Restore the state of these generators of torch, numpy or Python; values that are none are left alone."""
    states = [(generator, _state(generator)) for generator in generators]
    try:
        yield
    finally:
        for generator, state in states:
            if isinstance(generator, torch.Generator):
                generator.set_state(state)
            elif isinstance(generator, np.random.Generator):
                generator.bit_generator.state = state
            elif isinstance(generator, random.Random):
                generator.setstate(state)


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else None


class SeededDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws from a generator of its own, inside the `with` block, what torch draws from its global CPU generator.

    The numbers are those that follow `torch.manual_seed(seed)`, in this thread only: other threads neither change
    nor see them, and the global state stays as it is. Operations that name a generator use theirs.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch asks this; otherwise it imports its compiler, which takes 1.7 s

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, with the own generator if it takes one and none was given."""
        options = dict(kwargs or {})
        drawing = _with_generator(func)
        if drawing is None or options.get("generator") is not None or not _on_cpu(args, options):
            return func(*args, **options)
        return drawing(*args, **{**options, "generator": self._generator})


@cache
def _with_generator(func: Any) -> Any:
    """Return the overload of an operation that takes a generator, None where there is none."""
    names = {argument.name for argument in func._schema.arguments}
    if "generator" in names:
        return func
    for overload in func.overloadpacket.overloads():  # torch.rand, randn, randint, randperm and their like
        other = getattr(func.overloadpacket, overload)
        if {argument.name for argument in other._schema.arguments} == names | {"generator"}:
            return other
    return None


def _on_cpu(args: Any, options: Any) -> bool:
    tensors = [value for value in args if isinstance(value, torch.Tensor)]
    device = tensors[0].device if tensors else torch.device(options.get("device") or "cpu")
    return bool(device.type == "cpu")
