"""Comparison of an owner's model with one that trained alone, in `fit` or by the owner."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from kuber.domain.evaluation import Evaluation
from kuber.domain.joining_report import JoiningReport, joining_report
from kuber.entity.control import ADVICE, FILE_NAME, Control, stored_report
from kuber.entity.local_training import LocalTraining
from kuber.entity.loop_settings import check_model
from kuber.entity.model_adapter import ModelAdapter
from kuber.entity.state.journal import Journal
from kuber.entity.state.optimizer_copy import optimizers_in
from kuber.entity.validation_data import LabelledData
from kuber.errors import SettingsError
from kuber.learning.model_call import Collate


class Comparison:
    """Makes the twin of `fit`, compares it after each of its rounds, and keeps the last report in the folder."""

    def __init__(self, folder: Path, adapter: ModelAdapter, collate: Collate | None, *, rounds: int) -> None:
        """Let the twin train in so many rounds; with 0 there is none."""
        self.rounds = rounds
        self._path = folder / FILE_NAME
        self._adapter = adapter
        self._collate = collate
        self._begun: LocalTraining | None = None  # training that has or had a twin

    def after_round(self, training: LocalTraining, own: Evaluation | None, journal: Journal) -> None:
        """Make the twin before the first round; compare after each, and end after the last one."""
        twin = training.twin
        try:
            if twin is None:
                self._begin(training)
            elif own is not None:
                alone = self._adapter.evaluate_alike(twin.model)
                report = joining_report(alone, own, self._adapter.task.labels, rounds=twin.rounds + 1)
                twin.save(report)
                journal.append("compared", report.as_dict())
                journal.save()
                if twin.rounds >= self.rounds:
                    training.twin = None
        except BaseException:
            training.twin = None
            raise

    def report(self, alone: nn.Module | None, own: nn.Module, round: int, data: Any) -> JoiningReport:
        """Compare a model that trained alone with the own one, or without it return the last comparison of `fit`.

        Raises SettingsError when there is none.
        """
        if alone is not None:
            return self._with_model(check_model(alone, "alone"), own, round, data)
        if data is not None:
            raise SettingsError("data belong to alone: the twin of fit is compared on the validation data.")
        return self._last()

    def _last(self) -> JoiningReport:
        """Return the report of the last compared round. Raises SettingsError when there is none."""
        report = stored_report(self._path)
        if report is None:
            raise SettingsError(
                f"There is nothing to report: make the entity with control=True and train with fit, or {ADVICE}."
            )
        return report

    def _with_model(self, alone: nn.Module, own: nn.Module, round: int, data: Any) -> JoiningReport:
        """Compare two models of the owner's on the validation data, or on others."""
        samples = None
        if data is not None:
            samples = LabelledData(data, self._collate)
            samples.check(replace(self._adapter.task, test_set=None))
        elif self._adapter.data is None:
            raise SettingsError("The entity has no validation data; give data to compare the models on.")
        before, after = (self._adapter.evaluate_alike(model, samples) for model in (alone, own))
        return joining_report(before, after, self._adapter.task.labels, rounds=round)

    def _begin(self, training: LocalTraining) -> None:
        if self._begun is training:  # whose twin has ended
            return
        self._begun = training
        stored = stored_report(self._path)
        if stored is None or stored.rounds < self.rounds:
            training.twin = Control(training.model, optimizers_in(training.optimizer), self._path)
