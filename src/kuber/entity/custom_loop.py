"""Entities with a training loop of their owner's: KUber exchanges knowledge between its phases."""

import inspect
import re
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.evaluation import Evaluation
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Argument
from kuber.domain.policies import AcceptancePolicy
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import Query
from kuber.domain.strategies import Exchange
from kuber.domain.strategy import Guidance, Method, Strategy
from kuber.domain.task import Task
from kuber.entity.absorption import Absorber, EvaluatedModel
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import HubAccess, Sharing
from kuber.entity.hub.session import HubSession
from kuber.entity.initialization import agree_if_reachable
from kuber.entity.loop_settings import Counts, Publishing, approval, check_restores, published_counts
from kuber.entity.model_adapter import EvaluateFn, ModelAdapter
from kuber.entity.round import Round
from kuber.entity.state.checkpoint import Absorption, Checkpoints, initial_state
from kuber.entity.state.event_log import FILE_NAME, EventLog, rewind
from kuber.entity.state.journal import Journal
from kuber.entity.state.snapshot import Snapshot, copy_optimizer_state, restore_optimizer
from kuber.entity.state.storage import Storage
from kuber.entity.strategy_loader import strategy_named
from kuber.entity.teacher_selection import TeacherSelector
from kuber.entity.validation_data import Validation
from kuber.errors import SettingsError
from kuber.learning.evaluation import training_mode
from kuber.learning.losses import balanced_softmax
from kuber.learning.model_call import Collate, call_model, logits_from
from kuber.learning.random_state import kept_random_state
from kuber.learning.teachers import Teachers
from kuber.learning.training import Loss
from kuber.setting_effects import variables_without_effect
from kuber.signing import Identity

CACHE_BYTES = 1 << 30  # of pulled models on disk
HUB = "http://127.0.0.1:5001"

DEFAULT_STRATEGY = Exchange(acceptance=AcceptancePolicy(noise=1.0))  # few owners have thousands of validation samples


class Entity:
    """One independent learner whose owner trains its model; the entity exchanges knowledge with others.

    A phase is the time between two calls of `step`. docs/own-loop.md shows whole loops.
    """

    @kept_random_state()
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
        publish. With `reports=False` neither round nor evaluation nor reasons are reported to the registry.

        Raises SettingsError when arguments contradict each other.
        """
        self.name = name
        self.task = task
        self.model = model
        self.strategy = strategy_named(strategy) if isinstance(strategy, str) else strategy
        self._adapter = ModelAdapter(
            model,
            task,
            architecture=architecture,
            arguments=arguments,
            validation=validation,
            evaluate=evaluate,
            class_counts=published_counts(None if class_counts is None else tuple(class_counts), counts),
            formats=formats,
            judged=judged,
            collate=collate,
        )
        if self.strategy.common_start:
            self._adapter.check_weights_travel(self.strategy.name)
        self._restores = check_restores(restores)
        sharing = Sharing(report=bool(reports), approve=approval(publishing))
        home = Path(folder) if folder is not None else Path("entities") / re.sub(r"[^\w.-]", "_", name)
        home.mkdir(parents=True, exist_ok=True)
        identity = Identity.load_or_create(home / KEY_FILE)
        self._open = ExitStack()
        if isinstance(hub, str):
            credentials = Credentials(identity, invitation=invitation, path=home / TOKEN_FILE)
            vault = vault or _next_port(hub)
            hub = (
                self._open.enter_context(HttpRegistry(hub, credentials=credentials, patience=patience, ca=ca)),
                self._open.enter_context(HttpVault(vault, credentials=credentials, patience=patience, ca=ca)),
            )
        self._journal, storage = self._load(home)
        self._evaluator = Evaluator(self._adapter, self._journal)
        access = HubAccess(registry=hub[0], vault=hub[1], identity=identity, background=True)
        self._session = HubSession(self._journal, self._evaluator, access, storage, sharing, independent=True)
        self._open.callback(self._session.close)
        unread = variables_without_effect(inspect.signature(Entity).parameters)
        if unread is not None:
            self._session.alerts.warn(unread)
        self._round = Round(self.strategy, self._adapter, self._journal, self._session)
        self._absorber = Absorber(self.strategy, self._evaluator, self._journal, storage.weights)
        self._selector = TeacherSelector(
            self.strategy, self._adapter, self._session.discovery, self._round, max_candidates=max_candidates
        )
        self._snapshot = Snapshot(weights=self._adapter.weights())  # at the last decision
        self._in_phase = False
        self._decided = False  # whether the phase has been kept or reverted already

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
        """Close connections and files, and release the teachers."""
        self._selector.teachers = Teachers(classes=self.task.classes)
        self._open.close()

    @property
    def round(self) -> int:
        """Number of phases begun, in this process and in earlier ones with the same folder."""
        return self._journal.state.round

    @property
    def evaluation(self) -> Evaluation | None:
        """Evaluation of the model at the start of this phase; None if it has not been evaluated."""
        return self._snapshot.evaluation

    @kept_random_state()
    def evaluate(self) -> Evaluation:
        """Evaluate the current model on the data that decisions are made on."""
        return self._evaluator.own(None, stage="trained")

    @kept_random_state()
    def discover(self) -> Teachers:
        """Discover, choose, pull and test teachers for the next phase, as the strategy decides.

        Each pulled model is evaluated on the entity's own data before it is used. Without a common test set claims
        cannot be compared: the newest model of each other entity is pulled and chosen by its evaluation.
        """
        self._connect()
        return self._select_teachers(self._evaluation_at_start())

    @kept_random_state()
    def publish(self) -> bool:
        """Publish the current model; return whether it is published now.

        Else the hub cannot take it now, and it is queued, or a warning says why it is not published.
        """
        self._connect()
        if not self._in_phase:  # without `step`, publications count the phases
            self._journal.change(round=self._journal.state.round + 1)
        self._journal.change(weights=self._adapter.weights())
        published = self._publish(self.evaluate())
        self._journal.save()
        return published

    @kept_random_state()
    def keep_if_better(self, optimizer: torch.optim.Optimizer | None = None) -> bool:
        """Keep the model if the strategy accepts the changes since the last call; return whether any are kept.

        Else the midpoint between before and after is tried, and then all is reverted. The optimizer's state is
        restored with the model. The first call compares with the model that the entity was created with.
        """
        if self._snapshot.evaluation is None:
            evaluation = self._evaluator.own(self._snapshot.weights, stage="initial")
            self._snapshot = replace(self._snapshot, evaluation=evaluation)
        _, kept = self._keep_or_revert(optimizer)
        self._journal.save()
        return kept

    @kept_random_state()
    def step(self, optimizer: torch.optim.Optimizer | None = None) -> Teachers:
        """Decide about the phase that ends, and return the teachers of the next one.

        Keeps or reverts a phase in which teachers were used, publishes and merges as the strategy decides, reports to
        the registry, and discovers. The first call in a process only discovers.
        """
        self._connect()
        if self._in_phase and not self._decided:
            evaluation = self._end_phase(optimizer)
        else:
            begins = not self._in_phase and self.strategy.common_start and self._journal.state.origin is None
            if begins and agree_if_reachable(self._journal, self._session):
                self._adapter.load(self._journal.state.weights)
                self._snapshot = Snapshot(weights=self._adapter.weights())
            evaluation = self._evaluation_at_start()
        self._in_phase, self._decided = True, False
        self._journal.change(round=self._journal.state.round + 1)
        self._journal.append("round-started", {})
        return self._select_teachers(evaluation)

    def fit(
        self,
        batches: Iterable[Any],
        *,
        rounds: int,
        epochs: int = 1,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Evaluation:
        """Train on private data for `rounds` phases of `epochs` each, with `step` between them; evaluate the result.

        `batches` is iterated over once an epoch; each batch has samples and labels, in the forms that `validation`
        may have. The loss is the strategy's. The default optimizer is Adam with a learning rate of 1e-3. Modules that
        are held in evaluation mode, such as frozen BatchNorm layers, stay so.
        """
        optimizer = optimizer or torch.optim.Adam(self.model.parameters(), lr=1e-3)
        device, phase = self._adapter.device, self.strategy.local_phase()
        loss: Loss = nn.functional.cross_entropy
        if phase.loss == "balanced-softmax":
            counts = torch.zeros(self.task.classes, dtype=torch.int64)
            for batch in batches:
                counts += torch.bincount(self._adapter.split(batch)[1].cpu(), minlength=self.task.classes)
            loss = balanced_softmax(counts.to(device))
        guidance = phase.guidance or Guidance()
        for _ in range(rounds):
            teachers = self.step(optimizer)
            with training_mode(self.model):
                for _ in range(epochs):
                    for batch in batches:
                        x, y = self._adapter.split(batch)
                        logits = logits_from(call_model(self.model, x), classes=self.task.classes)
                        total = loss(logits, y) + guidance.weight * teachers.loss(logits, x, y)
                        optimizer.zero_grad()
                        total.backward()  # type: ignore[no-untyped-call]
                        optimizer.step()
        self._decided = True
        return self._end_phase(optimizer)

    def _load(self, home: Path) -> tuple[Journal, Storage]:
        """Load the state in the folder, or make a first one, and drop events that it does not count."""
        state = Checkpoints(home).latest()
        rewind(home / FILE_NAME, reached={self.name: state.next_event if state else 0})
        session_id = uuid.uuid4().hex  # a new one each time: what the owner did in between is not known
        if state is None:
            generator = torch.Generator().get_state()
            state = initial_state(session_id=session_id, weights=self._adapter.weights(), generator=generator)
        event_log = EventLog(home / FILE_NAME, clock=utc_now)
        self._open.callback(event_log.close)
        storage = Storage.in_folder(home, event_log, cache_bytes=CACHE_BYTES)
        return Journal(self.name, replace(state, session_id=session_id), storage), storage

    def _connect(self) -> None:
        self._session.join_and_flush()

    def _evaluation_at_start(self) -> Evaluation:
        """Return the evaluation of the snapshot; evaluate the current model if there is none."""
        evaluation = self._snapshot.evaluation or self.evaluate()
        self._snapshot = replace(self._snapshot, evaluation=evaluation)
        return evaluation

    def _end_phase(self, optimizer: torch.optim.Optimizer | None) -> Evaluation:
        """Keep or revert the phase, publish, merge, and report."""
        journal = self._journal
        start, before = self._snapshot.weights, self._snapshot.evaluation
        if self._selector.teachers.used:
            own, _ = self._keep_or_revert(optimizer)
        else:
            own = self.evaluate()
        journal.change(weights=self._adapter.weights(), round_start=start, previous=before, evaluation=own)
        if self.strategy.publishes(self._round.situation(own, before)):
            self._publish(own)
        request = self.strategy.after(self._round.situation(own, before))
        if request is not None and request[0] is Method.MERGE:
            own = self._merge(request[1], own)
        self._take_snapshot(own, optimizer)
        self._round.end(own)
        return own

    def _keep_or_revert(self, optimizer: torch.optim.Optimizer | None) -> tuple[Evaluation, bool]:
        """Keep or revert what changed since the snapshot, and record the teachers that were used."""
        snapshot, evaluation = self._snapshot, self.evaluate()
        model, kept = EvaluatedModel(self._adapter.weights(), evaluation), True
        used, absorption = self._selector.used(), None
        if snapshot.evaluation is not None:
            before, after = EvaluatedModel(snapshot.weights, snapshot.evaluation), model
            if used:
                choice = self._selector.choice
                assert choice is not None, "used teachers were chosen"
                outcome = self._absorber.absorb_guided(choice, used, before, after)
                model, absorption = outcome.model, outcome.absorption
                kept = absorption.delivery.kept
            else:
                model, kept = self._absorber.keep_or_revert(before, after)
            if model is not after:
                self._adapter.load(model.weights)
                restore_optimizer(optimizer, snapshot.optimizer)
            if absorption is not None:
                self._record(absorption)
        self._take_snapshot(model.evaluation, optimizer)
        return model.evaluation, kept

    def _merge(self, query: Query, own: Evaluation) -> Evaluation:
        """Average with mergeable models, if there are any; return the evaluation of the result."""
        journal = self._journal
        situation = self._round.situation(own, journal.state.previous)
        outcome = self._absorber.absorb_merged(*self._selector.choose(Method.MERGE, query, situation))
        if outcome is None:
            return own
        self._adapter.load(outcome.model.weights)
        journal.change(weights=outcome.model.weights)
        self._record(outcome.absorption)
        return outcome.model.evaluation

    def _select_teachers(self, own: Evaluation) -> Teachers:
        teachers = self._selector.select(self._round.situation(own, self._journal.state.previous))
        self._journal.save()
        return teachers

    def _publish(self, own: Evaluation) -> bool:
        # Teachers that were used are parents of this model even before the phase is kept or reverted.
        self._round.add_parents([candidate.knowledge.id for candidate in self._selector.used(clear=False)])
        return self._session.publisher.publish(own)

    def _record(self, absorption: Absorption) -> None:
        if absorption.delivery.kept:
            self._round.add_parents(absorption.delivery.teachers)
        key = self._journal.key(absorption.delivery.method)
        self._session.record(absorption, key=f"{key}/{self._journal.state.next_event}")

    def _take_snapshot(self, evaluation: Evaluation, optimizer: torch.optim.Optimizer | None) -> None:
        self._snapshot = Snapshot(
            weights=self._adapter.weights(), evaluation=evaluation, optimizer=copy_optimizer_state(optimizer)
        )


def _next_port(url: str) -> str:
    """Return the same address at the next port, the usual one of a hub's vault."""
    match = re.fullmatch(r"(.*:)(\d{1,5})/?", url)
    if match is None:
        raise SettingsError(f"The registry's address {url!r} has no port; give the vault's address too.")
    return f"{match[1]}{int(match[2]) + 1}"
