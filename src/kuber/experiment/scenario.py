"""A scenario: the frozen description of an experiment, with the data it speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kuber.data.common_test_set import load_task, split_test_rows, with_effective_sizes
from kuber.data.datasets import Dataset, Echo, load_dataset
from kuber.data.partition import Split, check_partition, divide, stratified
from kuber.data.samples import Rows, Samples
from kuber.domain.knowledge import Architecture, Argument
from kuber.domain.strategy import Strategy
from kuber.domain.task import Task
from kuber.entity.strategy_loader import strategy_named
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.experiment.world.attacks import turned_labels
from kuber.experiment.world.conditions import Poison, World
from kuber.experiment.world.config import draw, memberships, read_world
from kuber.learning.architectures import check_architecture, describe
from kuber.settings import Settings

MINIMUM_BATCHES = 2  # of private data that every entity gets at least
SLOWEST = 1000.0  # samples a virtual second


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """What every part of a run agrees on; the same settings give the same scenario in every process."""

    settings: Settings  # with the sizes that the data set gives
    dataset: Dataset
    task: Task
    architectures: tuple[Architecture, ...]  # of each entity
    strategy: Strategy
    private: tuple[Samples, ...]  # one for each entity
    common: Samples  # the common test set: decisions are made on it
    held_out: Samples  # no decision reads it
    world: World  # under which conditions they live in a simulation
    public: Samples | None = None  # without labels that anybody reads; only for methods that need such a set

    def class_counts(self, entity: int) -> tuple[int, ...]:
        """How many private samples of each class this entity has."""
        counts = np.bincount(self.private[entity].labels, minlength=self.task.classes)
        return tuple(int(count) for count in counts)


def load_scenario(settings: Settings, *, verify: bool = False, echo: Echo = lambda _: None) -> Scenario:
    """Load the data and split them as the settings say.

    `verify` hashes the cached data set before it is used. Raises DatasetError when the data cannot be had and
    SettingsError when they cannot be split as asked, or the world that is named is not possible.
    """
    check_partition(settings.partition)
    told = read_world(settings.world)
    groups = memberships(told, settings.num_entities, settings.seed)
    strategy = strategy_named(settings.strategy)
    for name in settings.architectures:
        check_architecture(name)
    dataset, task, common = load_task(settings, verify=verify, echo=echo)
    settings = with_effective_sizes(settings, dataset)
    _, held_out_rows = split_test_rows(settings, dataset)
    train = dataset.train
    if settings.train_size is not None and settings.train_size != len(train):
        train = train.take(stratified(train.labels, settings.train_size, settings.seed)[0])
    wanted = Split(
        entities=settings.num_entities,
        alpha=settings.dirichlet_alpha,
        classes=settings.classes_per_entity,
        seed=settings.seed,
        minimum=MINIMUM_BATCHES * settings.batch_size,
    )
    parts = divide(settings.partition, train.labels, wanted)
    parts = [
        _kept(part, told.share_of(group), wanted, index)
        for index, (part, group) in enumerate(zip(parts, groups, strict=True))
    ]
    arguments: dict[str, Argument] = {"input_shape": task.input_shape, "classes": task.classes}
    try:
        known = [describe(name, arguments) for name in settings.architectures]
    except IncompatibleKnowledgeError as error:
        raise SettingsError(error.message) from None
    world = draw(
        told,
        groups,
        speeds=_speeds(settings, [len(part) for part in parts]),
        round=settings.local_epochs * sum(len(part) for part in parts) / len(parts) / SLOWEST,
        rounds=settings.num_rounds,
        seed=settings.seed,
    )
    return Scenario(
        settings=settings,
        dataset=dataset,
        task=task,
        architectures=tuple(known[index % len(known)] for index in range(settings.num_entities)),
        strategy=strategy,
        private=tuple(
            _labelled(train.take(part), one.poison, task.classes)
            for part, one in zip(parts, world.entities, strict=True)
        ),
        common=common,
        held_out=dataset.test.take(held_out_rows),
        world=world,
        public=_public(settings, common.shape, verify=verify, echo=echo),
    )


def _kept(part: Rows, share: float, wanted: Split, index: int) -> Rows:
    """The share of its part that an entity has, in a seeded choice."""
    if share == 1.0:
        return part
    size = round(share * len(part))
    if size < wanted.minimum:
        raise SettingsError(
            f"In this world entity {index} has {size} samples, and needs at least {wanted.minimum}; "
            "let it have more of its data, or use smaller batches."
        )
    return np.sort(np.random.default_rng([wanted.seed, 4, index]).permutation(part)[:size])


def _labelled(samples: Samples, poison: Poison | None, classes: int) -> Samples:
    return samples.relabelled(turned_labels(classes)) if poison == "labels" else samples


def _speeds(settings: Settings, sizes: Sequence[int]) -> tuple[float, ...]:
    """Between SLOWEST and `speed_ratio` times as much, log-uniformly; at pace "rounds" for entities of mean size.

    At that pace whoever has more data is quicker, so that local phases take equally long: as in `kuber run`, where
    the entity that is least far comes next.
    """
    draws = np.random.default_rng([settings.seed, 1]).random(settings.num_entities)
    mean = sum(sizes) / len(sizes)
    scales = [size / mean if settings.pace == "rounds" else 1.0 for size in sizes]
    return tuple(
        float(SLOWEST * settings.speed_ratio**draw * scale) for draw, scale in zip(draws, scales, strict=True)
    )


def _public(settings: Settings, shape: tuple[int, ...], *, verify: bool, echo: Echo) -> Samples | None:
    """The first `public_size` training samples, in a seeded order, of the public data set."""
    if settings.public_dataset is None:
        return None
    public = load_dataset(settings.public_dataset, cache_dir=settings.cache_dir, verify=verify, echo=echo)
    if public.train.shape != shape:
        raise SettingsError(
            f"The public data set {public.name} has samples of shape {'x'.join(map(str, public.train.shape))}, "
            f"but {settings.dataset} has {'x'.join(map(str, shape))}; name one of the same shape."
        )
    order = np.random.default_rng(settings.seed).permutation(len(public.train))
    return public.train.take(np.sort(order[: settings.public_size]))
