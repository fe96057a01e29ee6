"""The decisions of a round that are the same whether KUber trains the model or its owner does."""

from collections.abc import Callable, Sequence
from typing import Any

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.strategy import Choice, Method, Situation, Strategy
from kuber.entity.deployment import Decision
from kuber.entity.evaluator import ModelPort
from kuber.entity.hub.session import HubSession
from kuber.entity.state.journal import Journal


class Round:
    """Decisions of the current round, and its end."""

    def __init__(self, strategy: Strategy, model: ModelPort, journal: Journal, session: HubSession) -> None:
        self._strategy = strategy
        self._model = model
        self._journal = journal
        self._session = session

    @property
    def guidance(self) -> float:
        """Share of its weight that guidance has in the next phase."""
        return self._journal.state.guidance

    def situation(self, own: Evaluation | None, previous: Evaluation | None) -> Situation:
        """Return the situation in which the strategy decides, given these evaluations of the model."""
        state = self._journal.state
        return Situation(
            round=state.round,
            classes=self._model.task.classes,
            own=own,
            previous=previous,
            published=state.published_evaluation,
            samples=self._model.sample_count or 0,
            architecture=self._model.architecture,
            origin=state.origin,
            ages={id: state.round - first for id, first in state.first_seen.items()},
        )

    def choose(self, method: Method, candidates: Sequence[Knowledge], situation: Situation) -> Choice:
        """Return what the strategy chooses among the candidates."""
        chosen = self._strategy.choose(candidates, method, situation)
        return Choice(method=method, situation=situation, candidates=candidates, chosen=list(chosen))

    def add_parents(self, knowledge: Sequence[str]) -> None:
        """Make these records, by id, parents of the next publication."""
        parents = dict.fromkeys((*self._journal.state.parents, *knowledge))
        self._journal.change(parents=tuple(parents))

    def end(self, evaluation: Evaluation, *, deploy: Callable[[], Decision] | None = None) -> None:
        """Report the evaluation at the end of the round and save it.

        With `deploy` also save the weights of the round, and those that it decides to deploy.
        """
        journal = self._journal
        self._session.report(evaluation)  # first: a crash in this call must not have ended the round
        detail: dict[str, Any] = {"accuracy": evaluation.accuracy, "checkpoint": None}
        if deploy is not None:
            detail["checkpoint"] = journal.save_weights()
            decision = deploy()
            detail["deployed"] = decision.detail(journal.state.round, journal.deploy(decision))
        journal.append("round-ended", detail)
        journal.save(stage="ended", previous=evaluation, evaluation=None, round_start=None, absorption=None)
