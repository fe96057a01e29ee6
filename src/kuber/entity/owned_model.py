"""The model that an owner trains: which object it is, how it is described, and whether its numbers are sound."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from kuber.domain.evaluation import Evaluation
from kuber.entity import loop_settings as checks
from kuber.entity.best_model import BestModel, EarlierModels
from kuber.entity.finite_check import FiniteCheck, has_finite_state
from kuber.entity.model_adapter import ModelAdapter
from kuber.entity.safeguard import undisturbed
from kuber.entity.state.optimizer_copy import optimizers_in
from kuber.entity.state.snapshot import Snapshot
from kuber.learning.weights import Weights
from kuber.learning.wrappers import unwrap

MakeAdapter = Callable[
    [nn.Module, nn.Module | None], ModelAdapter
]  # of the model and the judged one, if it is another


class OwnedModel:
    """An owner's model, its adapter, and its snapshot at the start of the phase; all change when it is replaced."""

    def __init__(
        self,
        model: nn.Module,
        judged: nn.Module | None,
        restores: tuple[Any, ...],
        make_adapter: MakeAdapter,
        *,
        keeps_best: bool = True,
    ) -> None:
        """Describe and check the model. Raises SettingsError."""
        self.earlier = EarlierModels(keeps=keeps_best)
        self._make_adapter = make_adapter
        self._restores = restores
        self._earlier: tuple[nn.Module, nn.Module | None, Snapshot] | None = None  # before the model was replaced
        self.adapter = make_adapter(model, judged)  # the same object for good
        self._set(model, judged)
        self.snapshot = self._new_snapshot()
        self.snapshot.take()

    @property
    def replaced(self) -> bool:
        """Whether another model was given since the last snapshot."""
        return self._earlier is not None

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The trained module, and the judged one if it is another."""
        return (self.model,) if self.judged is None else (self.model, self.judged)

    def replace(self, model: nn.Module, judged: nn.Module | None) -> None:
        """Make another model the owner's; `undo` goes back to the one of the snapshot. Raises SettingsError."""
        checks.check_model(model)
        if judged is not None:
            checks.check_model(judged, "judged")
        self.adapter.become(self._make_adapter(model, judged))
        if self._earlier is None:
            self._earlier = self.model, self.judged, self.snapshot
        self._set(model, judged)

    def describe_again(self) -> None:
        """Describe the model as it is now, with tensors that it did not have at the snapshot; it cannot be undone."""
        self.adapter.become(self._make_adapter(self.model, self.judged))
        self._set(self.model, self.judged)
        evaluation = self.snapshot.evaluation
        self.snapshot = self._new_snapshot()
        self.snapshot.evaluation = evaluation

    def take(self, optimizer: Any, evaluation: Any) -> None:
        """Take a snapshot of the model as it is now."""
        old = self.snapshot
        evaluated, undone = old.evaluation, old.evaluation is evaluation
        if evaluated is not None and not undone and self.earlier.add(old.weights, evaluated):
            old.let_go()
        if self._earlier is not None:
            self._earlier = None
            self.snapshot = self._new_snapshot()
        self.snapshot.take(optimizer, evaluation)

    def undo(self, optimizer: Any) -> list[str]:
        """Go back to the snapshot; return a sentence for each object that refuses its state."""
        if self._earlier is not None:
            model, judged, self.snapshot = self._earlier
            self.adapter.become(self._make_adapter(model, judged))
            self._earlier = None
            self._set(model, judged)
        return self.snapshot.restore(optimizer)

    def best(self, evaluate: Callable[[Weights], Evaluation | None]) -> BestModel | None:
        """Return the best of the model at the snapshot, earlier ones, and an average; None if it is not evaluated."""
        if self.snapshot.evaluation is None:
            return None
        last = self.snapshot.weights, self.snapshot.evaluation
        choice, evaluation, weights = self.earlier.choose(*last, (lambda _: None) if self.replaced else evaluate)
        module = unwrap(self.model if self.judged is None else self.judged)
        return BestModel(
            choice=choice,
            evaluation=evaluation,
            weights=weights,
            _module=module,
            _undisturbed=partial(undisturbed, *self.modules),
        )

    def fault(self, optimizer: Any = None) -> str | None:
        """Return what is wrong with the numbers of model and optimizer, in words; None if all are finite."""
        name = self._finite.first_fault()
        if name is not None:
            return f"the tensor {name} of the model holds numbers that are not finite"
        if not all(map(has_finite_state, optimizers_in(optimizer))):
            return "the optimizer's state holds numbers that are not finite"
        return None

    def _set(self, model: nn.Module, judged: nn.Module | None) -> None:
        self.model = model
        self.judged = None if judged is model else judged
        self._finite = FiniteCheck(*map(unwrap, self.modules))

    def _new_snapshot(self) -> Snapshot:
        judged = self.model if self.judged is None else self.judged
        return Snapshot(judged=unwrap(judged), trained=unwrap(self.model), restores=self._restores)
