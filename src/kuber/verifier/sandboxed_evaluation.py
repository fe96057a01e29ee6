"""Evaluation of one untrusted model in a process of its own, with limits on CPU time, memory and time."""

import multiprocessing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import torch
from torch import nn

from kuber.data.batches import Normalisation, ordered_batches
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture
from kuber.domain.task import Task
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, KnowledgeError
from kuber.learning.architectures import initial_weights
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.kernel_confinement import deny_files_and_network
from kuber.learning.runtime import Runtime, build
from kuber.learning.sandbox import confine
from kuber.learning.weights import load

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
            raise IncompatibleKnowledgeError(f"The model was not evaluated within {limits.seconds:g} seconds.")
        reply: Evaluation | KnowledgeError = receiver.recv()
    except EOFError:
        raise IncompatibleKnowledgeError(
            f"The model needs more than {limits.cpu_seconds} CPU seconds or {limits.memory_bytes} bytes of memory."
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(reply, KnowledgeError):
        raise reply
    return reply


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
            sender.send(job.verification_set.evaluate(network, runtime))
        except (CorruptKnowledgeError, IncompatibleKnowledgeError) as error:
            sender.send(error)


def _warm_up(job: EvaluationJob, runtime: Runtime) -> None:
    """Open the samples, and run the architecture with other weights, so that torch has loaded what this takes."""
    samples = job.verification_set.samples
    assert len(samples.labels), "the file of the samples is open"
    network = build(job.architecture, initial_weights(job.architecture, 0), runtime)
    some = replace(job.verification_set, samples=samples.take(range(2)))
    some.evaluate(network, runtime)
