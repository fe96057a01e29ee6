"""Entities with a training loop of their owner's: KUber exchanges knowledge between its phases."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import torch
from torch import nn

from kuber.domain.acceptance import AcceptancePolicy
from kuber.domain.evaluation import Evaluation
from kuber.domain.joining_report import JoiningReport
from kuber.domain.knowledge import Argument
from kuber.domain.ports import Registry, Vault
from kuber.domain.strategies import Exchange
from kuber.domain.strategy import Strategy
from kuber.domain.task import Task
from kuber.entity import loop_settings as checks
from kuber.entity.adapter_factory import AdapterFactory
from kuber.entity.best_model import BestModel
from kuber.entity.comparison import Comparison
from kuber.entity.hub.access import Counts, Sharing
from kuber.entity.local_training import LocalTraining
from kuber.entity.loop_parts import LoopParts
from kuber.entity.loop_settings import Publishing
from kuber.entity.model_adapter import EvaluateFn
from kuber.entity.own_prior import OwnPrior
from kuber.entity.owned_model import OwnedModel
from kuber.entity.predictor import Prior, make_predictor
from kuber.entity.safeguard import undisturbed
from kuber.entity.state.optimizer_copy import optimizers_in
from kuber.entity.validation_data import Validation
from kuber.errors import SettingsError
from kuber.learning.model_call import Collate, Inputs
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.teachers import Teacher, Teachers
from kuber.learning.weights import Weights
from kuber.setting_effects import variables_without_effect

T = TypeVar("T")
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None

HUB = "http://127.0.0.1:5001"

DEFAULT_STRATEGY = Exchange(acceptance=AcceptancePolicy(noise=1.0))  # few owners have thousands of validation samples


class Entity:
    """One independent learner whose owner trains its model; the entity exchanges knowledge with others.

    A phase is the time between two calls of `step`. docs/own-loop.md shows whole loops.
    """

    def __init__(
        self,
        name: str,
        *,
        model: nn.Module,
        task: Task,
        validation: Validation | None = None,
        evaluate: EvaluateFn | None = None,
        hub: str | tuple[Registry, Vault] = HUB,
        vault: str | None = None,
        strategy: str | Strategy = DEFAULT_STRATEGY,
        architecture: str | None = None,
        arguments: dict[str, Argument] | None = None,
        formats: Sequence[str] | None = None,
        class_counts: Sequence[int] | None = None,
        max_candidates: int = 6,
        folder: Path | str | None = None,
        invitation: str | None = None,
        ca: Path | None = None,
        patience: float = 10.0,
        judged: nn.Module | None = None,
        collate: Collate | None = None,
        restores: Sequence[Any] = (),
        publishing: Publishing = "auto",
        reports: bool = True,
        counts: Counts = "exact",
        carried_prior: Literal["own", "uniform", "unknown"] | None = None,
        keep_best: bool = True,
        control: bool | int = False,
    ) -> None:
        """Nothing is sent before the first call that needs the hub.

        `model` maps a batch of samples of the task to logits, one for each label of the task, in their order. It is
        evaluated on `validation` (batches (x, y), or two tensors; kept in memory), or by `evaluate`, a function of a
        network that returns an Evaluation.

        `hub` is the registry's URL and `vault` the vault's, by default the next port of the same machine; or `hub` is
        a pair of ports, as `kuber.memory_hub()` returns. `folder`, by default entities/NAME, holds the key, the
        token, the state and queued messages: with the same folder the same entity resumes. `invitation`, `ca` and
        `patience` are those of `kuber entity`.

        Entities of the same architecture can load the published weights. By default an architecture is the model's
        class and tensors; with `architecture` and `arguments` it is a name that others can make. For all others the
        model is also published as an ONNX graph, if onnxruntime is installed and it can be exported. `formats`, such
        as ("weights",), overrides that.

        The default strategy is `exchange` with a tolerance of one standard error of the evaluation; pass the name of
        another, or an object.

        `class_counts`, the number of training samples of each label, is published if given: as it is, with
        `counts="rounded"` in tens, with `counts=None` not at all. Without a common test set, at most `max_candidates`
        models are pulled and tested for each phase.

        `judged`, by default the model, is the module that is evaluated and published, such as an EMA copy. `collate`
        turns a batch of the owner's into inputs and labels. `restores` are objects with `state_dict` and
        `load_state_dict`, such as a scheduler, that go back with a phase that is undone. `publishing` may be "never",
        "ask" (at the terminal), or a function of the evaluation to be claimed and the round that returns whether to
        publish. With `keep_best=False` no copies of earlier models are kept for `best`. With `reports=False` neither
        round nor evaluation nor reasons are reported to the registry.

        `carried_prior` says which class frequencies the logits of the model contain. A plain cross-entropy trains
        them with those of the training samples ("own", the default where `class_counts` are given), a balanced loss
        or balanced batches with equal ones ("uniform"). Records say so: the prior of a teacher is taken out of its
        answers. `fit` knows it by itself.

        With `control`, `fit` trains in its first rounds (8, or this number) a copy of the model without teachers
        beside it, for `report`; that takes the time and the memory of a training alone.

        Raises SettingsError, which names the argument, for one that is impossible or contradicts another.
        """
        self.name = checks.check_name(name)
        self.task = checks.check_task(task)
        self.strategy = checks.check_strategy(strategy)
        checks.check_model(model)
        if judged is not None:
            checks.check_model(judged, "judged")
        checks.check_callable(evaluate, "evaluate", "a function of a network that returns a kuber.Evaluation")
        checks.check_callable(collate, "collate", "a function of a batch that returns inputs and labels")
        checks.check_hub(hub, vault, invitation, ca)
        patience = checks.check_seconds(patience, "patience")
        max_candidates = checks.check_number(max_candidates, "max_candidates")
        restores = checks.check_restores(restores)
        sharing = Sharing(
            report=checks.check_reports(reports),
            counts=checks.check_counts(counts),
            approve=checks.approval(publishing),
        )
        counted = checks.whole_counts(class_counts, task)
        self._prior = OwnPrior(
            classes=task.classes, class_counts=counted, carried=checks.carried_prior(carried_prior, counted)
        )
        rounds = checks.control_rounds(control, judged=judged, evaluate=evaluate)
        self.collate = collate
        describe = AdapterFactory(
            self.task,
            validation=validation,
            collate=collate,
            architecture=architecture,
            arguments=checks.plain_arguments(
                arguments, named=architecture is not None or isinstance(model, OnnxModel)
            ),
            evaluate=evaluate,
            class_counts=counted,
            formats=checks.check_formats(formats),
        )
        with undisturbed(model, *([] if judged is None else [judged])):
            self._owned = OwnedModel(model, judged, restores, describe, keeps_best=keep_best)
        self._adapter = self._owned.adapter
        if self.strategy.common_start:
            self._adapter.check_weights_travel(self.strategy.name)
        self._parts = LoopParts(
            self.name,
            self.strategy,
            self._owned,
            self._prior,
            folder=folder,
            hub=hub,
            vault=vault,
            invitation=invitation,
            patience=patience,
            ca=ca,
            sharing=sharing,
            max_candidates=max_candidates,
            publishes=publishing != "never",
            owner_evaluates=evaluate is not None,
        )
        self._journal, self._session = self._parts.journal, self._parts.session
        self._selector, self._phases = self._parts.selector, self._parts.phases
        self._safeguard = self._parts.safeguard
        self._comparison = Comparison(self._parts.home, self._adapter, collate, rounds=rounds)
        unread = variables_without_effect(inspect.signature(Entity).parameters)
        if unread is not None:
            self._session.alerts.warn(unread)

    def __repr__(self) -> str:
        accuracy = f"{100 * self.evaluation.accuracy:.1f} %" if self.evaluation else "not evaluated"
        return (
            f"<Entity {self.name!r}: {self.task.name}, strategy {self.strategy.name}, round {self.round}, {accuracy}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and files, release the teachers, and let others use the folder."""
        self._selector.teachers = self._no_teachers()
        self._safeguard.call("close", self._parts.close, None)

    @property
    def model(self) -> nn.Module:
        """The model that the owner trains. It cannot be assigned; `replace` gives another one."""
        return self._owned.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        raise SettingsError("model cannot be assigned; call entity.replace(model).")

    def replace(self, model: nn.Module, *, judged: nn.Module | None = None) -> None:
        """Give another model in place of this one, such as one that was fitted anew.

        The phase that ends is then judged with it; when it is undone, `entity.model` is the earlier one again. Raises
        SettingsError for a model that the constructor would not take.
        """
        with self._undisturbed(), undisturbed(checks.check_model(model)):
            self._owned.replace(model, judged)

    @property
    def round(self) -> int:
        """Number of phases begun, in this process and in earlier ones with the same folder."""
        return self._journal.state.round

    @property
    def evaluation(self) -> Evaluation | None:
        """Evaluation of the model at the start of this phase; None if it has not been evaluated."""
        return self._owned.snapshot.evaluation

    @property
    def best(self) -> BestModel | None:
        """The best model so far, to use; None before one was evaluated.

        It is the best, on the data that decisions are made on, of the model at the start of this phase, that at an
        earlier start, and the average of the last three, which is evaluated in this call. It leaves the training as
        it is.
        """

        def evaluate(weights: Weights) -> Evaluation | None:
            adapter = self._owned.adapter
            return self._guarded("evaluate the average", lambda: adapter.evaluate(weights).evaluation, None)

        return self._owned.best(evaluate)

    def evaluate(self) -> Evaluation:
        """Evaluate the current model on the data that decisions are made on.

        Unlike `step` it raises what fails: DivergedError when the model returns logits that are not finite.
        """
        with self._undisturbed():
            return self._phases.evaluate()

    def predictor(
        self,
        prior: Prior = "own",
        *,
        strength: float = 1.0,
        samples: Inputs | None = None,
        teachers: Sequence[Teacher] | None = None,
    ) -> nn.Module:
        """Return a copy of the current model for use, whose logits have these class frequencies in place of theirs.

        `prior` is "own", the frequencies of the training samples; "uniform"; counts or frequencies of the place where
        it will be used, one for each label; or "estimated" from unlabelled `samples` of that place. `strength`, 1 for
        all, is how much is adjusted. The copy returns logits, is in evaluation mode, and can be exported. Raises
        SettingsError when the frequencies that the logits have, or those asked for, are not known.

        With `teachers`, those that `step` or `discover` returned, it holds copies of them too, and combines their
        answers with the model's, by weights that are fitted to the validation data. Each call runs all of them.
        """
        with self._undisturbed():
            return make_predictor(
                self._owned.adapter, self._prior, prior, strength=strength, samples=samples, teachers=teachers
            )

    def discover(self) -> Teachers:
        """Discover, choose, pull and test teachers for the next phase, as the strategy decides.

        Each pulled model is evaluated on the entity's own data before it is used. Without a common test set claims
        cannot be compared: the newest model of each other entity is pulled and chosen by its evaluation.
        """

        def discover() -> Teachers:
            self._phases.connect()
            self._phases.evaluate_start()
            return self._phases.select()

        return self._guarded("discover", discover, None) or self._no_teachers()

    def publish(self) -> bool:
        """Publish the current model; return whether it is published now.

        Else the hub cannot take it now, and it is queued, or a warning says why it is not published.
        """

        def publish() -> bool:
            self._phases.connect()
            return self._phases.publish()

        return self._guarded("publish", publish, False)

    def keep_if_better(self, optimizer: Optimizers = None) -> bool:
        """Keep the model if the strategy accepts the changes since the last call; return whether any are kept.

        Else the midpoint between before and after is tried, and then all is reverted. The optimizer's state and the
        objects in `restores` go back with the model. The first call compares with the model that the entity was
        created with.
        """
        optimizers_in(optimizer)
        return self._guarded("keep the model", partial(self._phases.keep, optimizer), True)

    def step(self, optimizer: Optimizers = None) -> Teachers:
        """Decide about the phase that ends, and return the teachers of the next one.

        Keeps or reverts a phase in which teachers were used, publishes and merges as the strategy decides, reports to
        the registry, and discovers. The first call in a process only discovers. `optimizer`, one or a list, goes back
        with the model.
        """
        optimizers_in(optimizer)

        def step() -> Teachers:
            self._phases.connect()
            if self._phases.running and not self._phases.decided:
                self._phases.end(optimizer)
            else:
                self._phases.begin(optimizer)
            return self._phases.start()

        teachers = self._guarded("decide about the phase", step, None)
        if teachers is None:
            teachers = self._selector.teachers = self._no_teachers()
        return teachers

    def fit(
        self,
        batches: Iterable[Any],
        *,
        rounds: int,
        epochs: int = 1,
        optimizer: Optimizers = None,
    ) -> Evaluation:
        """Train on private data for `rounds` phases of `epochs` each, with `step` between them; evaluate the result.

        `batches` is iterated over once an epoch; each batch has samples and labels, or is turned into them by
        `collate`. The loss is the strategy's. The default optimizer is Adam with a learning rate of 1e-3. Parts of
        the model that are in evaluation mode stay so, unless the whole model is. Raises SettingsError when `batches`
        can be iterated only once or hold nothing, and what the model or the batches raise.
        """
        rounds, epochs = (
            checks.check_number(rounds, "rounds", least=1),
            checks.check_number(epochs, "epochs", least=1),
        )
        training = LocalTraining(
            self.model,
            self.task,
            batches,
            phase=self._phases.local_phase(),
            optimizer=optimizer,
            split=self._owned.adapter.split,
        )
        self._prior.carried = training.prior
        if self._prior.class_counts is None:
            self._prior.class_counts = training.class_totals
        for _ in range(rounds):
            teachers = self.step(training.optimizer)
            self._compare(training)
            training.train(teachers, epochs=epochs)

        def end() -> Evaluation | None:
            self._phases.end(training.optimizer)
            return self.evaluation

        evaluation = self._guarded("end the last phase", end, None)
        self._phases.decided = True
        self._compare(training)
        return evaluation or self.evaluate()

    def report(self, alone: nn.Module | None = None, *, data: Validation | None = None) -> JoiningReport:
        """Return how a model that trained alone compares with this one: accuracy, mean recall and each class.

        Without arguments, the last comparison of `fit` with the twin that `control` asks for. In a loop of your own
        train a second model without an entity, and pass it as `alone`; with `data`, which no decision reads, both
        models are compared on these. Print the report, or take `as_dict()`; the dashboard shows the last one. Raises
        SettingsError when there is none.
        """
        with self._undisturbed():
            report = self._comparison.report(alone, self.model, self.round, data)
            if alone is not None and not self._parts.closed:  # that of the twin is in the log already
                self._journal.append("compared", report.as_dict())
                self._journal.save()
            return report

    def _compare(self, training: LocalTraining) -> None:
        """Compare the model with its twin after a round, or make the twin; end the control when that fails."""
        if self._comparison.rounds:
            compare = partial(self._comparison.after_round, training, self.evaluation, self._journal)
            with self._undisturbed():
                self._safeguard.call("compare with training alone", compare, None)

    def _guarded(self, action: str, function: Callable[[], T], default: T) -> T:
        """Call a function that leaves the owner's training as it is, whatever fails in it."""
        with self._undisturbed():
            return self._safeguard.call(action, function, default, checks_arguments=True)

    def _undisturbed(self) -> AbstractContextManager[None]:
        return undisturbed(*self._owned.modules)

    def _no_teachers(self) -> Teachers:
        return Teachers(classes=self.task.classes)
