"""Select teachers for a custom loop: discovered, tested on the entity's own data, and used in its next phase."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kuber.domain.examination import as_found, distinct_publishers, places_for, without_copies
from kuber.domain.query import Query
from kuber.domain.stated_prior import is_no_worse_without
from kuber.domain.strategy import Candidate, Choice, Guidance, Method, Situation, Strategy
from kuber.entity.hub.candidate_models import PulledCandidate
from kuber.entity.hub.candidate_search import CandidateSearch
from kuber.entity.hub.discovery import Discovery
from kuber.entity.model_adapter import ModelAdapter
from kuber.entity.own_prior import OwnPrior
from kuber.entity.round import Round
from kuber.learning.batch_check import BatchCheck
from kuber.learning.teacher_priors import answer_shift
from kuber.learning.teachers import Teacher, Teachers


class TeacherSelector:
    """Selects the teachers of the current phase."""

    def __init__(
        self,
        strategy: Strategy,
        model: ModelAdapter,
        discovery: Discovery,
        round: Round,
        *,
        max_candidates: int,
        prior: OwnPrior,
    ) -> None:
        """Without a common test set, at most `max_candidates` are pulled and tested.

        `prior` is that of the student, whose loss `fit` may change.
        """
        self._strategy = strategy
        self._model = model
        self._discovery = discovery
        self._round = round
        self._max_candidates = max_candidates
        self._prior = prior
        self._search = CandidateSearch(strategy, discovery, model.task)
        self._check = BatchCheck()  # one for all phases: only the first batch of the training is refused
        self.teachers = Teachers(classes=model.task.classes, check=self._check)
        self.choice: Choice | None = None  # of these teachers

    def select(self, situation: Situation) -> Teachers:
        """Return the teachers that the strategy wants in the next phase, in place of those of the last one."""
        # Frees the last ones before others are pulled.
        self.teachers = Teachers(classes=self._model.task.classes, check=self._check)
        request = self._strategy.before(situation) or self._strategy.after(situation)
        candidates: Sequence[PulledCandidate] = ()
        if request is not None and request[0] is not Method.MERGE:
            self.choice, candidates = self.choose(*request, situation)
            if candidates:
                self._discovery.found_teachers()
        guidance = self._strategy.local_phase().guidance or Guidance()
        own = self._own_prior()
        self.teachers = Teachers(
            [self._teacher(candidate) for candidate in candidates],
            classes=self._model.task.classes,
            temperature=guidance.temperature if own is None else 1.0,
            sharpness=guidance.sharpness,
            weight=self._round.guidance,
            own=situation.own,
            advantage=guidance.advantage,
            prior=own,
            refuse=partial(self._discovery.models.refuse, warn=False),  # `Teachers` warns
            check=self._check,
        )
        return self.teachers

    def _own_prior(self) -> Tensor | None:
        """Return the log class frequencies that the student answers for: its own, if it is judged by them.

        None for a student that is judged by the common test set, or whose logits carry equal or unknown frequencies,
        and for the teacher of `vanilla`, which it takes as it is.
        """
        guided = self.choice is not None and self.choice.method is Method.GUIDE
        if not guided or self._model.task.test_set is not None or self._prior.carried != "own":
            return None
        if self._prior.own is None:
            return None
        return torch.tensor(self._prior.own).log()

    def _teacher(self, candidate: PulledCandidate) -> Teacher:
        """Return a teacher, without the prior that its record states, unless that makes it worse here."""
        teacher = Teacher(
            knowledge=candidate.knowledge,
            evaluation=candidate.evaluation,
            network=self._model.teacher_network(candidate.model),
            name=candidate.publisher,
        )
        guides = self.choice is not None and self.choice.method is Method.GUIDE
        shift = answer_shift(candidate.knowledge, self._model.task.labels) if guides else None
        if shift is None:
            return teacher
        without = self._model.evaluate_shifted(candidate.model, shift)
        if not is_no_worse_without(candidate.evaluation, without):
            return teacher
        return replace(teacher, evaluation=without, shift=shift)

    def choose(self, method: Method, query: Query, situation: Situation) -> tuple[Choice, Sequence[PulledCandidate]]:
        """Discover and choose by claims, or, without a common test set, by the entity's own evaluations."""
        task = self._model.task
        records = self._discovery.candidates(query)
        if task.test_set is not None:
            choice, tested = self._search.choose(records, method, situation)
            if not tested:
                self._discovery.ended_without_teachers(method, None if choice.chosen else choice)
            return choice, tested
        publishers = self._discovery.publishers
        first = places_for(
            without_copies(distinct_publishers(records), self._discovery.models.refused),
            publishers.all,
            self._max_candidates,
        )
        new = {record.id for record in first if not self._discovery.is_tested(record, method)}
        candidates = self._discovery.test(first, method)
        # The strategy chooses among them as if each had been claimed on our task and our data.
        evaluated = {
            candidate.knowledge.id: as_found(candidate.knowledge, candidate.evaluation, task)
            for candidate in candidates
        }
        useful = [
            evaluated[candidate.knowledge.id]
            for candidate in candidates
            if self._search.is_useful(candidate, method, situation, new=candidate.knowledge.id in new)
        ]
        choice = replace(self._round.choose(method, useful, situation), candidates=list(evaluated.values()))
        if not choice.chosen:
            self._discovery.ended_without_teachers(method, choice if candidates else None)
        by_id = {candidate.knowledge.id: candidate for candidate in candidates}
        return choice, [by_id[knowledge.id] for knowledge in choice.chosen]

    def used(self, *, clear: bool = True) -> tuple[Candidate, ...]:
        """Return the teachers that were used in a loss since the last call that cleared them."""
        used = list(self.teachers.used)
        if clear:
            self.teachers.used.clear()
        evaluations = {teacher.knowledge.id: teacher.evaluation for teacher in self.teachers}
        return tuple(
            Candidate(knowledge=knowledge, evaluation=evaluations.get(knowledge.id, knowledge.evaluation))
            for knowledge in used
        )
