"""Scenario: the frozen description of an experiment, with its data."""

from collections.abc import Sequence
from contextlib import suppress
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
from kuber.entity.work.steps import FORWARD_COST
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.experiment.world.attacks import rotated_labels
from kuber.experiment.world.conditions import Poison, World
from kuber.experiment.world.config import draw, memberships, read_world
from kuber.learning.architectures import check_architecture, describe
from kuber.settings import Settings

MIN_BATCHES = 2  # of private data for every entity
MIN_SPEED = 1000.0  # samples per virtual second
NO_NAMES = ("auto", "none")  # of a proxy's architecture
WITH_PRIVATE_NETWORK = 2 + FORWARD_COST  # work of an entity that has one and a proxy, which is its teacher too
DEFAULT_PROXIES = ("cnn", "mlp")  # the first that takes the samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Everything that the parts of a run have in common. Equal settings give equal scenarios in every process."""

    settings: Settings  # with the sizes that the data set gives
    dataset: Dataset
    task: Task
    architectures: tuple[Architecture, ...]  # of each entity
    proxy: Architecture | None  # of the proxies that entities with other architectures exchange; None: no proxies
    strategy: Strategy
    private: tuple[Samples, ...]  # of each entity
    common: Samples  # the common test set, on which decisions are made
    held_out: Samples  # the held-out test set, which no decision reads
    world: World  # the conditions of each entity in a simulation
    public: Samples | None = None  # labels are not read; only for methods that need a public set

    def class_counts(self, entity: int) -> tuple[int, ...]:
        """Return the number of private samples of each class that an entity has."""
        counts = np.bincount(self.private[entity].labels, minlength=self.task.classes)
        return tuple(int(count) for count in counts)

    def exchanged(self, entity: int) -> Architecture:
        """Return the architecture of the model that an entity exchanges: that of the proxies, or else its own."""
        return self.proxy or self.architectures[entity]

    def has_private_network(self, entity: int) -> bool:
        """Return whether an entity has a private network beside the proxy that it exchanges."""
        return self.exchanged(entity) != self.architectures[entity]


def load_scenario(settings: Settings, *, verify: bool = False, echo: Echo = lambda _: None) -> Scenario:
    """Load the data set and split it according to the settings.

    `verify` checks the digest of the cached data set. Raises DatasetError if the data set cannot be loaded, and
    SettingsError if it cannot be split as requested or the world is invalid.
    """
    check_partition(settings.partition)
    world_file = read_world(settings.world)
    groups = memberships(world_file, settings.num_entities, settings.seed)
    strategy = strategy_named(settings.strategy)
    for name in settings.architectures:
        check_architecture(name)
    if settings.proxy_architecture not in NO_NAMES:
        check_architecture(settings.proxy_architecture)
    dataset, task, common = load_task(settings, verify=verify, echo=echo)
    settings = with_effective_sizes(settings, dataset)
    _, held_out_rows = split_test_rows(settings, dataset)
    train = dataset.train
    if settings.train_size is not None and settings.train_size != len(train):
        train = train.take(stratified(train.labels, settings.train_size, settings.seed)[0])
    split = Split(
        entities=settings.num_entities,
        alpha=settings.dirichlet_alpha,
        classes=settings.classes_per_entity,
        seed=settings.seed,
        minimum=MIN_BATCHES * settings.batch_size,
    )
    parts = divide(settings.partition, train.labels, split)
    parts = [
        _reduced(part, world_file.share_of(group), split, index)
        for index, (part, group) in enumerate(zip(parts, groups, strict=True))
    ]
    arguments: dict[str, Argument] = {"input_shape": task.input_shape, "classes": task.classes}
    try:
        known = [describe(name, arguments) for name in settings.architectures]
        architectures = tuple(known[index % len(known)] for index in range(settings.num_entities))
        proxy = _proxy(settings, strategy, architectures)
    except IncompatibleKnowledgeError as error:
        raise SettingsError(error.message) from None
    works = [
        len(part) * (1 if proxy in (None, architecture) else WITH_PRIVATE_NETWORK)
        for part, architecture in zip(parts, architectures, strict=True)
    ]
    world = draw(
        world_file,
        groups,
        speeds=_speeds(settings, works),
        round=settings.local_epochs * sum(works) / len(works) / MIN_SPEED,
        rounds=settings.num_rounds,
        seed=settings.seed,
    )
    return Scenario(
        settings=settings,
        dataset=dataset,
        task=task,
        architectures=architectures,
        proxy=proxy,
        strategy=strategy,
        private=tuple(
            _labelled(train.take(part), conditions.poison, task.classes)
            for part, conditions in zip(parts, world.entities, strict=True)
        ),
        common=common,
        held_out=dataset.test.take(held_out_rows),
        world=world,
        public=_public(settings, common.shape, verify=verify, echo=echo),
    )


def _proxy(settings: Settings, strategy: Strategy, own: Sequence[Architecture]) -> Architecture | None:
    """Return the architecture of the proxies of entities with these own architectures, if there are any.

    Raises IncompatibleKnowledgeError when it does not take the samples.
    """
    name = settings.proxy_architecture
    if name == "none" or getattr(strategy, "proxy", None) is None:
        return None
    if name != "auto":
        return describe(name, own[0].arguments)
    if all(architecture == own[0] for architecture in own):
        return None
    for default in DEFAULT_PROXIES:
        with suppress(IncompatibleKnowledgeError):
            return describe(default, own[0].arguments)
    return None


def _reduced(part: Rows, share: float, split: Split, index: int) -> Rows:
    """Return a seeded selection of a share of an entity's part."""
    if share == 1.0:
        return part
    size = round(share * len(part))
    if size < split.minimum:
        raise SettingsError(
            f"In this world entity {index} has {size} samples, but needs at least {split.minimum}; "
            "increase `samples` of its group, or use smaller batches."
        )
    return np.sort(np.random.default_rng([split.seed, 4, index]).permutation(part)[:size])


def _labelled(samples: Samples, poison: Poison | None, classes: int) -> Samples:
    return samples.relabelled(rotated_labels(classes)) if poison == "labels" else samples


def _speeds(settings: Settings, works: Sequence[float]) -> tuple[float, ...]:
    """Draw log-uniform speeds between MIN_SPEED and `speed_ratio` times MIN_SPEED.

    `works` are the entities' work in each epoch, in samples trained. With pace "rounds" an entity with more data, or
    with a private network, is faster, so that rounds take equally long: as in `kuber run`, where the entity with the
    least progress comes next.
    """
    draws = np.random.default_rng([settings.seed, 1]).random(settings.num_entities)
    mean = sum(works) / len(works)
    scales = [work / mean if settings.pace == "rounds" else 1.0 for work in works]
    return tuple(
        float(MIN_SPEED * settings.speed_ratio**draw * scale) for draw, scale in zip(draws, scales, strict=True)
    )


def _public(settings: Settings, shape: tuple[int, ...], *, verify: bool, echo: Echo) -> Samples | None:
    """Return `public_size` training samples of the public data set, in a seeded selection."""
    if settings.public_dataset is None:
        return None
    public = load_dataset(settings.public_dataset, cache_dir=settings.cache_dir, verify=verify, echo=echo)
    if public.train.shape != shape:
        raise SettingsError(
            f"The public data set {public.name} has samples of shape {'x'.join(map(str, public.train.shape))}, "
            f"but {settings.dataset} has {'x'.join(map(str, shape))}; choose one of the same shape."
        )
    order = np.random.default_rng(settings.seed).permutation(len(public.train))
    return public.train.take(np.sort(order[: settings.public_size]))
