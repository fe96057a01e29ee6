"""Make entities from a scenario."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kuber.data.batches import Normalisation
from kuber.domain.knowledge import Architecture
from kuber.entity.hub.access import Approve, HubAccess, Sharing
from kuber.entity.managed import ManagedEntity
from kuber.entity.managed_model import Artifacts, ManagedModel, weights_only
from kuber.entity.state.checkpoint import State, initial_state
from kuber.entity.state.storage import Storage
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import Execute
from kuber.errors import SettingsError
from kuber.experiment.scenario import Scenario
from kuber.learning.architectures import initial_weights, is_reproducible
from kuber.learning.losses import Distillation
from kuber.learning.runtime import Runtime
from kuber.learning.training import Training
from kuber.learning.weights import Weights
from kuber.settings import Settings
from kuber.signing import Identity

PRIVATE_STREAM = 2  # 1 is that of keys


def entity_folder(folder: Path, index: int) -> Path:
    """Return the folder of entity `index` in the folder of its run."""
    return folder / "entities" / str(index)


def make_learner(scenario: Scenario, index: int, runtime: Runtime) -> Learner:
    """Return the learner of the model that entity `index` exchanges."""
    settings = scenario.settings
    assert scenario.task.test_set is not None, "a scenario has a common test set"
    optimizer: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "schedule": settings.learning_rate_schedule,
    }
    return Learner(
        architecture=scenario.exchanged(index),
        private=scenario.private[index],
        common=scenario.common,
        test_set=scenario.task.test_set,
        normalisation=Normalisation(scenario.dataset.mean, scenario.dataset.std),
        flip=scenario.dataset.flip,
        batch_size=settings.batch_size,
        training=Training(epochs=settings.local_epochs, **optimizer),
        distillation=Distillation(
            epochs=settings.kd_epochs, temperature=settings.kd_temperature, alpha=settings.kd_alpha, **optimizer
        ),
        runtime=runtime,
        classes=scenario.task.classes,
    )


def make_private_learner(scenario: Scenario, index: int, runtime: Runtime) -> Learner:
    """Return the learner of a network with the own architecture of entity `index`."""
    return replace(make_learner(scenario, index, runtime), architecture=scenario.architectures[index])


def make_learners(scenario: Scenario, runtime: Runtime) -> list[Learner]:
    """Return the learner of every entity."""
    return [make_learner(scenario, index, runtime) for index in range(len(scenario.private))]


def make_entity(
    scenario: Scenario,
    index: int,
    *,
    runtime: Runtime,
    hub: HubAccess,
    storage: Storage,
    execute: Execute,
    execute_beside: Execute | None = None,
    approve: Approve | None = None,
    artifacts: Artifacts = weights_only,
    session_id: str | None = None,
    start: Callable[[Architecture, int], Weights] = initial_weights,
    common_seed: int | None = None,
) -> ManagedEntity:
    """Make entity `index` of a scenario, in the state of its checkpoint or a new one.

    `approve` asks a person before each publication; SettingsError is raised when the settings require one and there
    is none. `artifacts` are made of the weights to publish. `start` returns the weights before the first round for an
    architecture and a seed, and `session_id` is the prefix of idempotency keys, by default a random one. A common
    start is made of `common_seed`; by default of the settings' seed, which all entities of one experiment share.
    """
    settings = scenario.settings
    saved = storage.checkpoints.latest()
    if saved is not None and saved.private is None:  # by an earlier version, which had no proxies
        scenario = replace(scenario, proxy=None)
    has_private = scenario.has_private_network(index)
    architecture, own_architecture = scenario.exchanged(index), scenario.architectures[index]
    model = ManagedModel(
        task=scenario.task,
        learner=make_learner(scenario, index, runtime),
        class_counts=scenario.class_counts(index),
        execute=execute,
        execute_beside=execute_beside,
        make_artifacts=artifacts,
        proxy_of=own_architecture.name if has_private else None,
    )
    own = replace(model, learner=make_private_learner(scenario, index, runtime), proxy_of=None)

    def initial() -> State:
        state = initial_state(
            session_id=session_id or uuid.uuid4().hex,
            weights=start(architecture, settings.seed),
            generator=generator_state(settings.seed, index),
        )
        if not has_private:
            return state
        weights = start(own_architecture, settings.seed)
        generator = generator_state(settings.seed, index, PRIVATE_STREAM)
        return replace(state, private=weights, private_generator=generator)

    def starts() -> list[Weights]:
        if not is_reproducible(architecture):
            return []
        # Entities of earlier versions began from those of the settings' seed.
        seeds = dict.fromkeys([settings.seed if common_seed is None else common_seed, settings.seed])
        return [start(architecture, seed) for seed in seeds]

    return ManagedEntity(
        str(index),
        model=model,
        strategy=scenario.strategy,
        rounds=settings.num_rounds,
        hub=hub,
        storage=storage,
        initial=initial,
        starts=starts,
        private=own if has_private else None,
        sharing=Sharing(
            verified_only=settings.verified_only,
            report=settings.reports,
            transfer_dtype=settings.transfer,
            approve=_approve(settings, approve),
        ),
    )


def _approve(settings: Settings, ask: Approve | None) -> Approve:
    if settings.publishing == "ask":
        if ask is None:
            raise SettingsError("publishing = ask needs a person to ask: run `kuber entity` in a terminal.")
        return ask
    return lambda evaluation, round: settings.publishing == "auto"


def derived_identity(seed: int, index: int) -> Identity:
    """Return the key of a simulated entity. Everybody can compute it, so it protects nothing."""
    return Identity(np.random.SeedSequence([seed, index, 1]).generate_state(8, np.uint32).tobytes())


def generator_state(seed: int, index: int, *stream: int) -> torch.Tensor:
    """Return the state of an entity's generator for shuffling and augmentation, independent for each entity.

    `stream` is PRIVATE_STREAM for the generator of its private network.
    """
    word = np.random.SeedSequence([seed, index, *stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word) >> 1).get_state()
