"""Synchronous entities: all of a scenario in lockstep, and the cost of each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kuber.domain.deployment import Choice
from kuber.domain.prior import Frequencies, carried_prior
from kuber.domain.strategy import LocalPhase
from kuber.entity.work.learner import Learner
from kuber.entity.work.personal import PersonalResult, personal_model
from kuber.entity.work.steps import TrainingResult, Work, training
from kuber.errors import SettingsError
from kuber.experiment.baselines.deployed import DeployedModels
from kuber.experiment.engines.base import Engine
from kuber.experiment.entity_factory import generator_state, make_learners
from kuber.experiment.metrics import Cost, MetricsRecorder
from kuber.experiment.scenario import Scenario
from kuber.learning.architectures import initial_weights
from kuber.learning.runtime import Runtime
from kuber.learning.training import Span, span_of
from kuber.learning.weights import Weights

PLAIN = LocalPhase()


def check_synchronous(scenario: Scenario) -> None:
    """Raise SettingsError unless all entities can run in lockstep.

    They must have one architecture, and be online and sound all the time.
    """
    if len(set(scenario.settings.architectures)) > 1:
        raise SettingsError("This method needs entities of one architecture; name only one, or leave the method out.")
    if not all(conditions.always_available for conditions in scenario.world.entities):
        raise SettingsError(
            "This method runs all entities in lockstep, but in this world some are absent, offline or unsound; "
            "choose another world, or leave the method out."
        )


class SynchronousEntities:
    """All entities of a scenario, in lockstep."""

    def __init__(self, scenario: Scenario, runtime: Runtime, engine: Engine, recorder: MetricsRecorder) -> None:
        """Raise SettingsError as `check_synchronous` does."""
        check_synchronous(scenario)
        settings = scenario.settings
        self.scenario = scenario
        self.learners = make_learners(scenario, runtime)
        self.rounds = settings.num_rounds
        self.initial = initial_weights(scenario.architectures[0], settings.seed)
        self.public = scenario.public
        self.sizes = [len(learner.private) for learner in self.learners]
        counts = [scenario.class_counts(index) for index in range(len(self.learners))]
        self.own_priors = [carried_prior(PLAIN, of_entity) for of_entity in counts]  # of models of plain training
        self.pooled_prior = carried_prior(PLAIN, [sum(of_class) for of_class in zip(*counts, strict=True)])
        self._engine = engine
        self._recorder = recorder
        self.generators = [generator_state(settings.seed, index) for index in range(len(scenario.private))]
        self._costs = [Cost()] * len(self.learners)
        self._previous_costs = list(self._costs)  # at the end of the round before
        self._world = scenario.world
        self._time = 0.0  # virtual seconds
        self._deployed = DeployedModels(self.learners, engine.submit, self.spend)

    def span(self, round: int) -> Span:
        """Return where a round begins and ends among all."""
        return span_of(round, self.rounds)

    def train(
        self,
        starts: Sequence[Weights],
        span: Span,
        phase: LocalPhase = PLAIN,
        corrections: Sequence[Weights] | None = None,
    ) -> list[Weights]:
        """Train every entity for a local phase from its own start; return the weights that each ends with.

        Its correction, if there are any, is added to the gradient of every step.
        """
        added: Sequence[Weights | None] = corrections or [None] * len(starts)
        works = [
            training(learner, phase, start, generator, span=span, correction=correction)
            for learner, start, generator, correction in zip(
                self.learners, starts, self.generators, added, strict=True
            )
        ]
        return self.train_all(works)

    def train_all(self, works: list[Work]) -> list[Weights]:
        """Execute a training step of every entity, and add its cost; return the weights that each ends with."""
        results: list[TrainingResult] = self.execute(works)
        self.generators = [result.generator for result in results]
        for index, result in enumerate(results):
            self.spend(index, Cost(samples_trained=result.samples, seconds=result.seconds))
        return [result.weights for result in results]

    def spend(self, entity: int, cost: Cost) -> None:
        """Add to the cost of an entity."""
        self._costs[entity] += cost

    def execute(self, works: Sequence[Work]) -> list[Any]:
        """Return the results of work steps that run at once, one for each entity, or one on the data of all.

        Virtual time advances until the slowest entity has finished; work on the data of all runs on the quickest.
        """
        futures = [self._engine.submit(work) for work in works]
        speeds = [entity.speed for entity in self._world.entities]
        if len(works) != len(speeds):
            speeds = [max(speeds)] * len(works)
        self._time += max(work.cost / speed for work, speed in zip(works, speeds, strict=True))
        return [future.result() for future in futures]

    def end_round(self, round: int, models: Sequence[list[Weights]], carried: Sequence[Frequencies]) -> None:
        """End the round of every entity with these models: one, or several whose logits are averaged.

        Entities with one and the same model give one and the same list. Those deployed are recorded.
        `carried` are the priors that these logits carry. Virtual time advances until the last entity has sent and
        received the messages of this round.
        """
        self._time += self._transfer()
        deployed = self._deployed.choose(round, models)
        personal = self._personal(deployed, carried) if round == self.rounds else [None] * len(deployed)
        for index, ((model, choice), prior) in enumerate(zip(deployed, carried, strict=True)):
            self._recorder.end_round(
                index,
                round,
                model,
                self._costs[index],
                time=self._time,
                carried=prior,
                deployed=choice,
                personal=personal[index],
            )
        self._recorder.evaluate()

    def _personal(
        self, deployed: Sequence[tuple[list[Weights], Choice]], carried: Sequence[Frequencies]
    ) -> list[Weights | None]:
        """Return each entity's deployed model with a personal head, by the rule of the entities that KUber trains.

        An ensemble has none.
        """
        single = [index for index, (models, _) in enumerate(deployed) if len(models) == 1]
        works = {
            index: personal_model(
                self.learners[index],
                deployed[index][0][0],
                carried=carried[index],
                class_counts=self.scenario.class_counts(index),
            )
            for index in single
        }
        futures = {index: self._engine.submit(work) for index, work in works.items()}
        found: list[Weights | None] = [None] * len(deployed)
        for index, future in futures.items():
            result: PersonalResult = future.result()
            self.spend(index, Cost(samples_forward=result.forward, seconds=result.seconds))
            found[index] = result.weights
        return found

    def _transfer(self) -> float:
        """Return the seconds that the messages of this round take, one each way."""
        moved = [
            (now.bytes_up - before.bytes_up, now.bytes_down - before.bytes_down)
            for now, before in zip(self._costs, self._previous_costs, strict=True)
        ]
        self._previous_costs = list(self._costs)
        links = [conditions.link for conditions in self._world.entities]
        own = [up / link.up + down / link.down for (up, down), link in zip(moved, links, strict=True)]
        all_of_it = sum(up + down for up, down in moved) / self._world.bandwidth
        latencies = [link.latency for sizes, link in zip(moved, links, strict=True) if any(sizes)]
        return max(*own, all_of_it) + 2 * max(latencies, default=0.0)


def pooled(entities: SynchronousEntities) -> Learner:
    """Return a learner with the private data of all entities."""
    first = entities.learners[0]
    parts = [learner.private.rows for learner in entities.learners if learner.private.rows is not None]
    rows = np.sort(np.concatenate(parts))
    return replace(first, private=replace(first.private, rows=rows))
