"""Cost of teachers: of a training step with k teachers, and of an ONNX teacher compared with the same one in torch.

Prints medians of ratios, each of two consecutive measurements: a step of the `cnn` on images of CIFAR-10's shape,
batch 64, with 1, 2 and 3 loaded weights teachers, to a plain step (limit: 1 + 0.4 k); and the logits of an ONNX
teacher, including its process and the transfer, to those of the network in torch (limit: 1.5).
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Artifact, Knowledge
from kuber.domain.task import Task
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.onnx_export import export
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.runtime import Runtime, build, keep_freed_memory
from kuber.learning.teachers import Teacher, Teachers

SHAPE, CLASSES, BATCH = (3, 32, 32), 10, 64
TASK = Task(name="images", labels=tuple(map(str, range(CLASSES))), input_shape=SHAPE, test_set=Digest.of(b"common"))
EVALUATION = Evaluation(test_set=Digest.of(b"common"), correct=(5,) * CLASSES, total=(10,) * CLASSES)


def voice(network: nn.Module, architecture: str) -> Teacher:
    knowledge = Knowledge(
        id=architecture,
        entity="other",
        task=TASK,
        architecture=describe(architecture, {"input_shape": SHAPE, "classes": CLASSES}),
        artifacts={WEIGHTS: Artifact.of(b"weights")},
        evaluation=EVALUATION,
        round=1,
        published_at=datetime.now(UTC),
    )
    network.requires_grad_(False).eval()
    return Teacher(knowledge=knowledge, evaluation=EVALUATION, network=network)


def seconds(work: Callable[[], object], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        work()
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="cnn")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    runtime = Runtime(device="cpu", precision="float32", threads=1, channels_last=True)
    architecture = describe(args.architecture, {"input_shape": SHAPE, "classes": CLASSES})
    networks = [build(architecture, initial_weights(architecture, seed), runtime) for seed in range(4)]
    student, *others = networks
    optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9)
    x = runtime.place(torch.randn(BATCH, *SHAPE))
    y = torch.randint(0, CLASSES, (BATCH,))

    def step(teachers: Teachers) -> Callable[[], None]:
        def work() -> None:
            said = student(x)
            loss = F.cross_entropy(said, y) + teachers.loss(said, x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return work

    plain = step(Teachers(classes=CLASSES))
    for count in (1, 2, 3):
        taught = step(Teachers([voice(network, args.architecture) for network in others[:count]], classes=CLASSES))
        seconds(plain, 2)
        seconds(taught, 2)
        ratios = [seconds(taught, args.steps) / seconds(plain, args.steps) for _ in range(args.turns)]
        result = {"teachers": count, "ratio": round(median(ratios), 3), "bar": round(1 + 0.4 * count, 1)}
        print(json.dumps(result | {"least": round(min(ratios), 3), "most": round(max(ratios), 3)}), flush=True)

    torch_teacher = others[0].eval()
    onnx_teacher = OnnxModel(export(torch_teacher, input_shape=SHAPE), input_shape=SHAPE, classes=CLASSES)
    with torch.no_grad():
        seconds(lambda: onnx_teacher(x), 3)
        seconds(lambda: torch_teacher(x), 3)
        ratios = [
            seconds(lambda: onnx_teacher(x), args.steps) / seconds(lambda: torch_teacher(x), args.steps)
            for _ in range(args.turns)
        ]
    result = {"onnx to torch": round(median(ratios), 3), "bar": 1.5}
    print(json.dumps(result | {"least": round(min(ratios), 3), "most": round(max(ratios), 3)}), flush=True)


if __name__ == "__main__":
    main()
