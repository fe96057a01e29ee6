"""Adapters of an owner's model, and of one in its place, on the same validation data."""

from typing import Any

from torch import nn

from kuber.domain.task import Task
from kuber.entity import loop_settings as checks
from kuber.entity.model_adapter import ModelAdapter
from kuber.entity.validation_data import Validation
from kuber.learning.model_call import Collate


class AdapterFactory:
    """Makes the adapter of a model; the validation data are read once."""

    def __init__(
        self, task: Task, *, validation: Validation | None, collate: Collate | None, **settings: Any
    ) -> None:
        """Take `settings` of `ModelAdapter`, which are those of all models."""
        self._task = task
        self._validation = validation
        self._collate = collate
        self._settings = settings
        self._first: ModelAdapter | None = None

    def __call__(self, model: nn.Module, judged: nn.Module | None) -> ModelAdapter:
        """Describe and check a model, and the judged module if it is another. Raises SettingsError."""
        data = None if self._first is None else self._first.data
        adapter = ModelAdapter(
            model,
            self._task,
            judged=judged,
            collate=self._collate,
            validation=self._validation if data is None else data,
            **self._settings,
        )
        checks.check_architecture(adapter.architecture)
        self._first = self._first or adapter
        return adapter
