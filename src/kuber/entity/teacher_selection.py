"""Whom an entity with its own loop listens to: found, examined on its own data, and heard in its phase."""

from dataclasses import replace

from kuber.domain.knowledge import Knowledge
from kuber.domain.query import Query
from kuber.domain.strategy import Candidate, Choice, Guidance, Method, Situation, Strategy
from kuber.entity.absorption import EvaluatedTeachers
from kuber.entity.hub.discovery import Discovery
from kuber.entity.model_adapter import ModelAdapter
from kuber.entity.state.journal import Journal
from kuber.learning.teachers import Teacher, Teachers


class TeacherSelector:
    """The teachers of the phase that is under way."""

    def __init__(
        self, bench: ModelAdapter, strategy: Strategy, *, retrieval: Discovery, journal: Journal, examined: int
    ) -> None:
        """Without a common test set, `examined` candidates at most are pulled to be looked at."""
        self._bench = bench
        self._strategy = strategy
        self._retrieval = retrieval
        self._journal = journal
        self._examined = examined
        self.teachers = Teachers(classes=bench.task.classes)
        self.choice: Choice | None = None  # of these teachers

    def find(self, situation: Situation) -> Teachers:
        """The teachers that the strategy wants beside us in the coming phase; those of the last one are let go."""
        self.teachers = Teachers(classes=self._bench.task.classes)
        request = self._strategy.before(situation) or self._strategy.after(situation)
        taught: EvaluatedTeachers = ()
        if request is not None and request[0] is not Method.MERGE:
            self.choice, taught = self.chosen(*request, situation)
        guidance = self._strategy.local_phase().guidance or Guidance()
        self.teachers = Teachers(
            [
                Teacher(
                    knowledge=one.knowledge,
                    evaluation=one.evaluation,
                    network=self._bench.speaker(teacher, teacher.task or self._bench.task),
                )
                for one, teacher in taught
            ],
            classes=self._bench.task.classes,
            temperature=guidance.temperature,
            sharpness=guidance.sharpness,
            refuse=lambda knowledge, reason: self._retrieval.refuse(knowledge, reason, 0),
        )
        return self.teachers

    def chosen(self, method: Method, query: Query, situation: Situation) -> tuple[Choice, EvaluatedTeachers]:
        """What a search finds, chosen by claims; where claims say nothing here, by what we find ourselves."""
        retrieval = self._retrieval
        candidates = retrieval.candidates(query)
        self._journal.append("sought", {"candidates": len(candidates)})
        task = self._bench.task
        if task.test_set is not None:
            choice = self._choice(candidates, method, situation)
            return choice, retrieval.tested(choice.chosen, method)
        found = retrieval.tested(candidates[: self._examined], method)
        # As we see them: on our task, by what we found on our data.
        seen = [
            replace(one.knowledge, task=task, evaluation=one.evaluation, class_counts=None, verification=None)
            for one, _ in found
        ]
        by_id = {one.knowledge.id: (one, teacher) for one, teacher in found}
        choice = self._choice(seen, method, situation)
        return choice, [by_id[one.id] for one in choice.chosen]

    def heard(self, *, forget: bool = True) -> tuple[Candidate, ...]:
        """Who has spoken since this was last asked, and forgotten."""
        spoke = list(self.teachers.used)
        if forget:
            self.teachers.used.clear()
        found = {teacher.knowledge.id: teacher.evaluation for teacher in self.teachers}
        return tuple(Candidate(knowledge=one, evaluation=found.get(one.id, one.evaluation)) for one in spoke)

    def _choice(self, candidates: list[Knowledge], method: Method, situation: Situation) -> Choice:
        chosen = self._strategy.choose(candidates, method, situation)
        return Choice(method=method, situation=situation, candidates=candidates, chosen=list(chosen))
