"""Entities made from a scenario."""

import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kuber.data.batches import Normalisation
from kuber.domain.knowledge import Architecture
from kuber.domain.ports import Registry, Vault
from kuber.entity.hub.publisher import Consents, Forms, as_weights
from kuber.entity.managed import ManagedEntity
from kuber.entity.state.blob_cache import BlobCache, PendingBlobs
from kuber.entity.state.checkpoint import CheckpointStore, initial_state
from kuber.entity.state.event_log import EventSink
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import Execute
from kuber.entity.work.weight_store import WeightStore
from kuber.errors import SettingsError
from kuber.experiment.scenario import Scenario
from kuber.learning.architectures import initial_weights
from kuber.learning.losses import Distillation
from kuber.learning.runtime import Runtime
from kuber.learning.training import Training
from kuber.learning.weights import Weights
from kuber.settings import Settings
from kuber.signing import Identity


def waiting_blobs(folder: Path) -> BlobCache:
    """Where an entity, whose folder this is, keeps weights that wait for the vault."""
    return BlobCache(folder / "waiting")


def entity_folder(folder: Path, index: int) -> Path:
    """Where entity `index` of a run keeps its checkpoints."""
    return folder / "entities" / str(index)


def make_learner(scenario: Scenario, index: int, runtime: Runtime) -> Learner:
    """What the work steps of entity `index` need."""
    settings = scenario.settings
    assert scenario.task.test_set is not None, "a scenario has a common test set"
    return Learner(
        architecture=scenario.architectures[index],
        private=scenario.private[index],
        common=scenario.common,
        test_set=scenario.task.test_set,
        normalisation=Normalisation(scenario.dataset.mean, scenario.dataset.std),
        flip=scenario.dataset.flip,
        batch_size=settings.batch_size,
        training=Training(
            epochs=settings.local_epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        ),
        distillation=Distillation(
            epochs=settings.kd_epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            temperature=settings.kd_temperature,
            alpha=settings.kd_alpha,
        ),
        runtime=runtime,
        classes=scenario.task.classes,
    )


def make_learners(scenario: Scenario, runtime: Runtime) -> list[Learner]:
    """What the work steps of every entity need."""
    return [make_learner(scenario, index, runtime) for index in range(len(scenario.private))]


def make_entity(
    scenario: Scenario,
    index: int,
    *,
    runtime: Runtime,
    registry: Registry,
    vault: Vault,
    checkpoints: CheckpointStore,
    log: EventSink,
    identity: Identity,
    execute: Execute,
    ask: Consents | None = None,
    waiting: PendingBlobs | None = None,
    cache: BlobCache | None = None,
    forms: Forms = as_weights,
    life: Callable[[], str] = lambda: uuid.uuid4().hex,
    housing: WeightStore | None = None,
    start: Callable[[Architecture, int], Weights] = initial_weights,
) -> ManagedEntity:
    """Entity `index` of a scenario, as its checkpoint left it or new; `life` names a new one.

    `ask` asks a person before each publication; SettingsError when the settings want one, and there is none.
    `forms`, `waiting`, `cache` and `housing` are as those of an Entity; `start` gives the weights before the first
    round, of an architecture and a seed.
    """
    settings = scenario.settings
    return ManagedEntity(
        str(index),
        task=scenario.task,
        learner=make_learner(scenario, index, runtime),
        strategy=scenario.strategy,
        rounds=settings.num_rounds,
        registry=registry,
        vault=vault,
        checkpoints=checkpoints,
        log=log,
        class_counts=scenario.class_counts(index),
        identity=identity,
        execute=execute,
        reports=settings.reports,
        verified_only=settings.verified_only,
        consents=_consents(settings, ask),
        narrow=settings.transfer == "bfloat16",
        forms=forms,
        waiting=waiting,
        cache=cache,
        housing=housing,
        initial=lambda: initial_state(
            life=life(),
            weights=start(scenario.architectures[index], settings.seed),
            generator=generator_state(settings.seed, index),
        ),
    )


def _consents(settings: Settings, ask: Consents | None) -> Consents:
    if settings.publishing == "ask":
        if ask is None:
            raise SettingsError("publishing = ask wants a person: run `kuber entity` in a terminal.")
        return ask
    return lambda evaluation, round: settings.publishing == "auto"


def derived_identity(seed: int, index: int) -> Identity:
    """The key of a simulated entity: anybody can compute it, so it protects nothing."""
    return Identity(np.random.SeedSequence([seed, index, 1]).generate_state(8, np.uint32).tobytes())


def generator_state(seed: int, index: int) -> torch.Tensor:
    """Shuffling and augmentation of one entity; independent streams for every pair of seed and entity."""
    word = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word) >> 1).get_state()
