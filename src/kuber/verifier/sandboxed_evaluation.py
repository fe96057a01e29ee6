"""Evaluation of one untrusted model in a process of its own, with limits on CPU time, memory and time."""

import json
import multiprocessing
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Self

import torch
from torch import nn

from kuber.data.batches import Normalisation, ordered_batches
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture
from kuber.domain.task import Task
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, TimeLimitError, first_line
from kuber.learning.architectures import initial_weights
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.kernel_confinement import deny_files_and_network
from kuber.learning.runtime import Runtime, build
from kuber.learning.sandbox import confine
from kuber.learning.weights import load

_MAX_REPLY = 1 << 22  # bytes
START_SECONDS = 60  # for the process to load torch, in addition to its limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits on the evaluation of one model."""

    cpu_seconds: int = 60
    memory_bytes: int = 2 << 30  # in addition to what the process needs before it loads the model
    seconds: float = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationSet:
    """The task and the samples that claims are verified on; no entity trains on these samples."""

    task: Task
    samples: Samples  # the common test set, or a secret one of the operator
    test_set: Digest  # of the samples
    normalisation: Normalisation

    @property
    def task_name(self) -> str:
        """Name of the task, by which its records are found."""
        return self.task.name

    @property
    def task_test_set(self) -> Digest | None:
        """Common test set of the records, which is not `test_set` where the samples are secret."""
        return self.task.test_set

    def for_task(self, task: Task) -> Self:
        """Return this set. Raises IncompatibleKnowledgeError for another task."""
        if task != self.task:
            raise IncompatibleKnowledgeError("The record is for another task of that name.")
        return self

    def evaluate(self, network: nn.Module, runtime: Runtime) -> Evaluation:
        """Count the network's correct answers per class. Raises CorruptKnowledgeError when a logit is not finite."""
        batches = ordered_batches(self.samples, batch_size=EVALUATION_BATCH, normalisation=self.normalisation)
        return evaluate(
            network, batches, classes=self.task.classes, test_set=self.test_set, runtime=runtime, strict=True
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationJob:
    """A model and the samples to evaluate it on; picklable."""

    architecture: Architecture
    weights: bytes  # safetensors
    verification_set: VerificationSet


def evaluate_sandboxed(job: EvaluationJob, limits: Limits) -> Evaluation:
    """Evaluate a model in a process of its own.

    Raises CorruptKnowledgeError when the weights or logits are invalid, IncompatibleKnowledgeError when the model
    exceeds the limits.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_evaluate, args=(job, limits, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(limits.seconds + START_SECONDS):
            raise TimeLimitError(f"The model was not evaluated within {limits.seconds:g} seconds.")
        reply = receiver.recv_bytes(_MAX_REPLY)
    except (EOFError, OSError):
        process.join(START_SECONDS)
        if process.exitcode == -signal.SIGXCPU:
            raise TimeLimitError(f"The model needs more than {limits.cpu_seconds} CPU seconds.") from None
        raise IncompatibleKnowledgeError(
            f"The model needs more than {limits.cpu_seconds} CPU seconds or {limits.memory_bytes} bytes of memory."
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    return _evaluation_in(reply, job.verification_set)


def _evaluate(job: EvaluationJob, limits: Limits, sender: Connection) -> None:
    torch.set_num_threads(1)
    confine(memory_bytes=limits.memory_bytes, cpu_seconds=limits.cpu_seconds)
    images = len(job.verification_set.task.input_shape) == 3
    runtime = Runtime(device="cpu", precision="float32", threads=1, channels_last=images)
    with sender:
        try:
            _warm_up(job, runtime)
            deny_files_and_network()
            network = build(job.architecture, load(job.weights, job.architecture), runtime)
            evaluation = job.verification_set.evaluate(network, runtime)
            _send(sender, {"correct": evaluation.correct, "total": evaluation.total})
        except CorruptKnowledgeError as error:
            _send(sender, {"corrupt": error.message})
        except IncompatibleKnowledgeError as error:
            _send(sender, {"incompatible": error.message})
        except Exception as error:  # noqa: BLE001 - a model that fails is a verdict, not the end of the verifier
            kind = f"{type(error).__name__}: {first_line(error)}"
            message = f"The model cannot be evaluated with {limits.memory_bytes} bytes of memory ({kind})."
            _send(sender, {"incompatible": message})


def _send(sender: Connection, reply: dict[str, Any]) -> None:
    sender.send_bytes(json.dumps(reply).encode())  # not pickled: the process may no longer be ours


def _evaluation_in(reply: bytes, verification_set: VerificationSet) -> Evaluation:
    """Return the evaluation in a reply. Raises the KnowledgeError in it; CorruptKnowledgeError when it is neither."""
    try:
        fields = json.loads(reply)
        for name, kind in (("corrupt", CorruptKnowledgeError), ("incompatible", IncompatibleKnowledgeError)):
            if name in fields:
                raise kind(str(fields[name]))
        correct, total = ([int(count) for count in fields[name]] for name in ("correct", "total"))
        if sum(total) != len(verification_set.samples):
            raise ValueError("other samples")
        return Evaluation(test_set=verification_set.test_set, correct=tuple(correct), total=tuple(total))
    except (ValueError, TypeError, KeyError):
        raise CorruptKnowledgeError("The process that evaluated the model returned no evaluation.") from None


def _warm_up(job: EvaluationJob, runtime: Runtime) -> None:
    """Open the samples, and run the architecture with other weights, so that torch has loaded what this takes."""
    samples = job.verification_set.samples
    assert len(samples.labels), "the file of the samples is open"
    network = build(job.architecture, initial_weights(job.architecture, 0), runtime)
    some = replace(job.verification_set, samples=samples.take(range(2)))
    some.evaluate(network, runtime)
