"""Evaluations, knowledge and situations for the tests of decisions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Artifact, Knowledge, TensorSpec
from kuber.domain.strategy import Situation
from kuber.domain.task import Task

COMMON = Digest.of(b"common test set")
ORIGIN = Digest.of(b"initial checkpoint")
TASK = Task(name="toy", labels=("a", "b"), input_shape=(3,), test_set=COMMON)
ARCHITECTURE = Architecture(name="toy", arguments={}, manifest={"w": TensorSpec(dtype="F32", shape=(2, 3))})
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def evaluation(*correct: int, test_set: str = "common test set") -> Evaluation:
    """An evaluation with these counts of 100 correct in each class; with one, all samples are of the first class."""
    total = (100, 0) if len(correct) == 1 else (100,) * len(correct)
    counts = (*correct, 0) if len(correct) == 1 else correct
    return Evaluation(test_set=Digest.of(test_set.encode()), correct=counts, total=total)


def knowledge(id: str, *correct: int, minutes: int = 0, **changes: Any) -> Knowledge:
    """Knowledge with this id, published `minutes` after noon."""
    fields: dict[str, Any] = {
        "id": id,
        "published_at": NOON + timedelta(minutes=minutes),
        "entity": "another",
        "task": TASK,
        "architecture": ARCHITECTURE,
        "artifacts": {"weights": Artifact(digest=Digest.of(id.encode()), size=24)},
        "evaluation": evaluation(*correct),
        "round": 1,
    }
    return Knowledge(**fields | changes)


def situation(own: Evaluation | None, **changes: Any) -> Situation:
    """An entity in round 2, on a task of ten classes."""
    fields: dict[str, Any] = {"round": 2, "classes": 10, "own": own, "previous": None}
    return Situation(**fields | changes)
