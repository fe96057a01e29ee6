"""Cache of the results of work steps on disk: an interrupted comparison computes none of them twice.

A work step is a pure function, so equal arguments give equal results: the first rounds of two strategies, or of
`local` and a longer `local`, are computed once.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kuber.data.samples import Samples
from kuber.entity.work.average import AverageResult
from kuber.entity.work.pair import PairResult
from kuber.entity.work.personal import PersonalResult
from kuber.entity.work.steps import DroppedTeacher, EvaluationResult, TrainingResult, Work
from kuber.experiment.engines.base import Engine
from kuber.files import atomic_replacement
from kuber.learning.weights import Weights
from kuber.wire.registry import EvaluationBody

_GENERATOR = "generator"
_MODEL = "model."


class ResultCache:
    """An engine that executes on another one the work steps whose results are not in its folder."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._engine = engine
        self._folder = folder
        self._lock = Lock()
        self._under_way: dict[str, Future[Any]] = {}

    def submit(self, work: Work) -> Future[Any]:
        key = work_key(work)
        path = self._folder / f"{key}.safetensors"
        with self._lock:
            if key in self._under_way:
                return self._under_way[key]
            found = _read(path)
            if found is not None:
                known: Future[Any] = Future()
                known.set_result(found)
                return known
            self._under_way[key] = outer = Future[Any]()

        def finish(inner: Future[Any]) -> None:
            try:
                result = inner.result()
                _write(path, result)
            except BaseException as error:  # noqa: BLE001 - the outer future raises it
                outer.set_exception(error)
            else:
                outer.set_result(result)
            with self._lock:
                del self._under_way[key]

        self._engine.submit(work).add_done_callback(finish)
        return outer


def work_key(work: Work) -> str:
    """Return the digest of a work step, 64 hex digits: of its function and arguments, samples by file and rows."""
    sha = hashlib.sha256(f"{torch.__version__} {work.function.__module__}.{work.function.__qualname__}".encode())
    _feed(sha, work.arguments)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    """Feed a value to the hash. Types and lengths come first, so that different values feed different bytes."""
    match value:
        case torch.Tensor() | np.ndarray():
            array = np.ascontiguousarray(value.numpy() if isinstance(value, torch.Tensor) else value)
            sha.update(f"array {array.dtype.str} {array.shape}\n".encode())
            sha.update(array.data)
        case Samples():
            _feed(sha, [str(value.path), value.part, value.rows, value.label_map])
        case Mapping():
            _feed(sha, [[name, value[name]] for name in sorted(value)])
        case list() | tuple():
            sha.update(f"sequence {len(value)}\n".encode())
            for item in value:
                _feed(sha, item)
        case None | bool() | int() | float() | str():
            text = repr(value)
            sha.update(f"{type(value).__name__} {len(text)} {text}\n".encode())
        case _ if is_dataclass(value):
            _feed(sha, [type(value).__name__, *_field_values(value)])
        case _:
            raise TypeError(f"an argument of a work step is of type {type(value).__name__}, which cannot be hashed")


def _field_values(value: Any) -> list[Any]:
    """Return the values of a dataclass's fields, without those added later that have their defaults.

    So the results that an earlier version has stored stay valid.
    """
    pairs = [(field, getattr(value, field.name)) for field in fields(value)]
    return [own for field, own in pairs if not (field.metadata.get("added_later") and own == field.default)]


def _write(path: Path, result: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    match result:
        case TrainingResult():
            tensors = {f"{_MODEL}{name}": tensor.contiguous() for name, tensor in result.weights.items()}
            tensors[_GENERATOR] = result.generator
            names = ("samples", "forward", "loss", "seconds")
            metadata: dict[str, Any] = {name: getattr(result, name) for name in names}
            if result.dropped:
                metadata["dropped"] = result.dropped
        case EvaluationResult() | AverageResult():
            if isinstance(result, AverageResult):
                tensors = {f"{_MODEL}{name}": tensor.contiguous() for name, tensor in result.weights.items()}
            evaluation = EvaluationBody.of(result.evaluation).model_dump(mode="json")
            metadata = {"evaluation": evaluation, "seconds": result.seconds}
            if result.evaluation.right is not None:
                metadata["right"] = [f"{bits:x}" for bits in result.evaluation.right]
        case PersonalResult():
            tensors = {f"{_MODEL}{name}": tensor.contiguous() for name, tensor in (result.weights or {}).items()}
            metadata = {name: getattr(result, name) for name in ("before", "after", "forward", "seconds")}
        case PairResult():
            metadata = asdict(result)
        case torch.Tensor():
            tensors, metadata = {"logits": result.contiguous()}, {}
        case _:
            raise TypeError(f"a work step returned a {type(result).__name__}, which cannot be stored")
    with atomic_replacement(path) as temporary:
        save_file(tensors, temporary, metadata={"result": json.dumps(metadata)})


def _read(path: Path) -> Any:
    """Return the result in this file, or None if there is none or it is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["result"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        path.unlink(missing_ok=True)
        return None
    if "evaluation" in metadata:
        evaluation = EvaluationBody.model_validate_json(json.dumps(metadata["evaluation"])).value()
        if "right" in metadata:  # results of earlier versions lack it
            evaluation = replace(evaluation, right=tuple(int(bits, 16) for bits in metadata["right"]))
        seconds = metadata["seconds"]
        if tensors:
            return AverageResult(weights=_weights_in(tensors), evaluation=evaluation, seconds=seconds)
        return EvaluationResult(evaluation=evaluation, seconds=seconds)
    if "share" in metadata:
        return PairResult(**metadata)
    if "after" in metadata:
        return PersonalResult(weights=_weights_in(tensors) or None, **metadata)
    if "logits" in tensors:
        return tensors["logits"]
    generator = tensors.pop(_GENERATOR)
    metadata["dropped"] = tuple(DroppedTeacher(*fields) for fields in metadata.get("dropped", ()))
    return TrainingResult(weights=_weights_in(tensors), generator=generator, **metadata)


def _weights_in(tensors: dict[str, torch.Tensor]) -> Weights:
    return {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items()}
