"""One model, evaluated in a process of its own under limits of processor time, memory and time."""

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from kuber.data.batches import Normalisation, ordered_batches
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, KnowledgeError
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.runtime import Runtime, build
from kuber.learning.sandbox import confine
from kuber.learning.weights import load

START_SECONDS = 60  # that the process may take to load torch, beside its limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one model may take."""

    cpu_seconds: int = 60
    memory_bytes: int = 2 << 30  # beside what the process needs before it loads the model
    seconds: float = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationJob:
    """A model and the samples it is evaluated on; picklable."""

    architecture: Architecture
    weights: bytes  # safetensors
    samples: Samples
    test_set: Digest  # of the samples
    normalisation: Normalisation
    classes: int


def run(trial: EvaluationJob, limits: Limits) -> Evaluation:
    """What the model answers. Raises CorruptKnowledgeError when it is unsound or answers nonsense, and
    IncompatibleKnowledgeError when it cannot be run within the limits."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_evaluate, args=(trial, limits, there), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(limits.seconds + START_SECONDS):
            raise IncompatibleKnowledgeError(f"The model was not evaluated within {limits.seconds:g} seconds.")
        answer: Evaluation | KnowledgeError = here.recv()
    except EOFError:
        raise IncompatibleKnowledgeError(
            f"The model needs more than {limits.cpu_seconds} seconds of a processor or {limits.memory_bytes} bytes."
        ) from None
    finally:
        process.kill()
        process.join()
        here.close()
    if isinstance(answer, KnowledgeError):
        raise answer
    return answer


def _evaluate(trial: EvaluationJob, limits: Limits, answer: Connection) -> None:
    torch.set_num_threads(1)
    confine(memory_bytes=limits.memory_bytes, cpu_seconds=limits.cpu_seconds)
    runtime = Runtime(device="cpu", precision="float32", threads=1, channels_last=len(trial.samples.shape) == 3)
    try:
        network = build(trial.architecture, load(trial.weights, trial.architecture), runtime)
        batches = ordered_batches(trial.samples, batch_size=EVALUATION_BATCH, normalisation=trial.normalisation)
        found = evaluate(
            network, batches, classes=trial.classes, test_set=trial.test_set, runtime=runtime, strict=True
        )
    except (CorruptKnowledgeError, IncompatibleKnowledgeError) as error:
        answer.send(error)
    else:
        answer.send(found)
    finally:
        answer.close()
