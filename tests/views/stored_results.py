"""Invented results of a run and of a comparison."""

from dataclasses import replace
from typing import Any

from kuber.settings import Settings
from kuber.views.comparison import ComparisonResult, Difference, Point, ResultRow, Spread, Summary
from kuber.views.result import EntityResult, RunResult

NONE = Spread(mean=0.0, sd=None)


def entity(name: str, *accuracies: float) -> EntityResult:
    return EntityResult(
        entity=name,
        final_accuracy=accuracies[-1],
        start_accuracy=accuracies[0],
        gain=accuracies[-1] - accuracies[0],
        accuracies=accuracies,
        samples=30,
        published=2,
        absorbed=1,
        rejected=0,
        bytes_up=1000,
        bytes_down=500,
        own_accuracy=accuracies[-1] + 0.5,
        own_accuracies=tuple(accuracy + 0.5 for accuracy in accuracies),
    )


RESULT = RunResult(
    run_dir="runs/x",
    strategy="kuber",
    seed=3,
    dataset="digits",
    architecture="mlp",
    rounds=2,
    device="cpu",
    precision="float32",
    entities=(entity("0", 0.1, 0.3), entity("1", 0.3, 0.1 + 0.1)),
    mean_accuracy=0.25,
    worst_accuracy=0.2,
    wall_seconds=1 / 3,
    samples_trained=100,
    samples_forward=40,
    own_accuracy=0.75,
)


def row(strategy: str, seed: int, *accuracies: float) -> ResultRow:
    return ResultRow(
        strategy=strategy,
        seed=seed,
        rounds=1,
        mean_accuracy=sum(accuracies) / len(accuracies),
        worst_accuracy=min(accuracies),
        own_accuracy=0.5,
        own_accuracies=(0.5,) * len(accuracies),
        absent_accuracy=None,
        samples_trained=100,
        samples_forward=30,
        compute=110.0,
        bytes_up=0,
        bytes_down=0,
        wall_seconds=1 / 3,
        deliveries=0,
        deliveries_hurt=0,
        accuracies=accuracies,
        curve=(Point(round=1, accuracy=0.3, compute=110.0, bytes=0),),
        deployed=("last", "average"),
    )


def summary(strategy: str, mean: float, sd: float | None, **changes: Any) -> Summary:
    plain = Summary(
        strategy=strategy,
        seeds=2,
        mean_accuracy=Spread(mean=mean, sd=sd),
        worst_accuracy=Spread(mean=mean - 0.1, sd=sd),
        own_accuracy=Spread(mean=0.5, sd=sd),
        absent_accuracy=None,
        compute=Spread(mean=100.0, sd=sd),
        bytes_up=NONE,
        bytes_down=NONE,
        wall_seconds=Spread(mean=1234.5, sd=sd),
        mean_difference=None,
        worst_difference=None,
        entities=4,
        entities_hurt=0,
        deliveries=0,
        deliveries_hurt=0,
    )
    return replace(plain, **changes)


COMPARISON = ComparisonResult(
    settings=Settings(num_rounds=8).model_dump(mode="json"),
    strategies=("local", "kuber", "fedmd"),
    seeds=(0, 7),
    rounds=8,
    rows=(row("local", 0, 0.3, 0.1 + 0.2), row("kuber", 0, 0.5, 0.4)),
    summary=(
        summary("local", 0.3, 0.012),
        summary(
            "kuber",
            0.45,
            0.02,
            compute=Spread(mean=127.0, sd=1.0),
            bytes_up=Spread(mean=2_000_000.4, sd=1.0),
            mean_difference=Difference(mean=0.15, low=0.05, high=0.25),
            own_difference=Difference(mean=0.02, low=-0.01, high=0.05),
            entities_hurt_own=2,
            deliveries=9,
            deliveries_hurt=2,
            entities_hurt=1,
        ),
        summary("fedmd", 0.2, 0.01, mean_difference=Difference(mean=-0.1, low=None, high=None)),
    ),
)
