"""An entity whose training loop is its owner's: it seeks, keeps or undoes, and publishes when it is told to."""

import logging
import re
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.evaluation import Evaluation
from kuber.domain.event import utc_now
from kuber.domain.explanation import explanation
from kuber.domain.knowledge import Argument
from kuber.domain.policies import AcceptancePolicy
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import Query
from kuber.domain.strategies import Exchange
from kuber.domain.strategy import Candidate, Guidance, Method, Situation, Strategy
from kuber.domain.task import Task
from kuber.entity.absorption import Outcome, absorb_merged, keep_or_revert
from kuber.entity.export_formats import ExportFormats
from kuber.entity.hub.session import open_session
from kuber.entity.initialization import agree_on_initial_checkpoint
from kuber.entity.model_adapter import Evaluates, ModelAdapter, Validation
from kuber.entity.state.blob_cache import BlobCache
from kuber.entity.state.checkpoint import Checkpoints, State, initial_state
from kuber.entity.state.event_log import FILE_NAME, EventLog, rewind
from kuber.entity.state.journal import Journal
from kuber.entity.state.snapshot import Snapshot, copy_optimizer_state, restore_optimizer
from kuber.entity.strategy_loader import strategy_named
from kuber.entity.teacher_selection import TeacherSelector
from kuber.entity.work.steps import Work
from kuber.errors import SettingsError
from kuber.learning.losses import balanced_softmax
from kuber.learning.teachers import Teachers
from kuber.learning.training import Loss
from kuber.learning.weights import Weights
from kuber.signing import Identity

CACHE = 1 << 30  # bytes of pulled models kept on disk
HUB = "http://127.0.0.1:5001"

OWN = Exchange(acceptance=AcceptancePolicy(noise=1.0))  # few have a validation set of thousands

log = logging.getLogger("kuber")


class Entity:
    """One independent learner in its owner's hands: the owner trains the model, the entity exchanges knowledge.

    A phase is what lies between two calls of `step`; docs/own-loop.md shows whole loops.
    """

    def __init__(
        self,
        name: str,
        *,
        model: nn.Module,
        task: Task,
        validation: Validation | None = None,
        evaluate: Evaluates | None = None,
        hub: str | tuple[Registry, Vault] = HUB,
        vault: str | None = None,
        strategy: str | Strategy = OWN,
        architecture: str | None = None,
        arguments: dict[str, Argument] | None = None,
        forms: Sequence[str] | None = None,
        class_counts: Sequence[int] | None = None,
        examined: int = 6,
        folder: Path | str | None = None,
        invitation: str | None = None,
        ca: Path | None = None,
        patience: float = 10.0,
    ) -> None:
        """Nothing is sent before the first call that needs the hub.

        `model` takes batches of samples of the task and gives logits, one for each of its labels, in their order.
        What it is worth is measured on `validation` (batches (x, y), or two tensors; kept in memory), or by
        `evaluate`, which is given a network and returns an Evaluation.

        `hub` is the registry's URL, and `vault` the vault's, by default the next port of the same machine; or both
        are given as ports, such as those in memory. `folder`, by default entities/NAME, keeps the key, the token and
        all that waits to be told; with the same folder the entity goes on as the same one. `invitation`, `ca` and
        `patience` are as those of `kuber entity`.

        Others of the same architecture, by `architecture` and `arguments` or by the model's class and tensors, can
        load what is published here; for all others it is published as an ONNX graph too, where onnxruntime is
        installed and the model can be written as one. `forms`, such as ("weights",), says otherwise.

        The strategy is `exchange`, whose gate lets one standard error of the evaluation pass; a name or an object of
        another may be given.

        `class_counts`, the number of training samples of each label, is told to others where it is given. Without a
        common test set, `examined` candidates at most are pulled to be looked at.

        Raises SettingsError when these things do not fit one another.
        """
        self.name = name
        self.task = task
        self.model = model
        self.strategy = strategy_named(strategy) if isinstance(strategy, str) else strategy
        self._bench = bench = ModelAdapter(
            model, task, architecture=architecture, arguments=arguments, validation=validation, evaluates=evaluate
        )
        self._class_counts = None if class_counts is None else tuple(class_counts)
        own_forms = ExportFormats(bench, forms, name=name)
        home = Path(folder) if folder is not None else Path("entities") / re.sub(r"[^\w.-]", "_", name)
        home.mkdir(parents=True, exist_ok=True)
        identity = Identity.load_or_create(home / KEY_FILE)
        self._open = ExitStack()
        if isinstance(hub, str):
            credentials = Credentials(identity, invitation=invitation, path=home / TOKEN_FILE)
            hub = (
                self._open.enter_context(HttpRegistry(hub, credentials=credentials, patience=patience, ca=ca)),
                self._open.enter_context(
                    HttpVault(vault or _next_port(hub), credentials=credentials, patience=patience, ca=ca)
                ),
            )
        registry, blobs = hub
        checkpoints = Checkpoints(home)
        state = checkpoints.latest()
        rewind(home / FILE_NAME, reached={name: state.seq if state else 0})
        life = uuid.uuid4().hex  # a new one each time: what the owner did in between is not known
        state = replace(state, life=life) if state else _first_state(life, bench.weights())
        self._log = EventLog(home / FILE_NAME, clock=utc_now)
        self._journal = journal = Journal(name, state, checkpoints=checkpoints, log=self._log)
        self._registry = registry
        ties = open_session(
            journal,
            identity,
            registry=registry,
            vault=blobs,
            task=task,
            architecture=bench.architecture,
            evaluating=bench.evaluating,
            execute=_execute,
            sample_count=None if self._class_counts is None else sum(self._class_counts),
            class_counts=self._class_counts,
            waiting=BlobCache(home / "waiting"),
            cache=BlobCache(home / "cache", limit=CACHE),
            knows=bench.knows,
            forms=own_forms,
        )
        self._line, self._outbox, self._membership = ties.line, ties.outbox, ties.membership
        self._retrieval, self._publisher = ties.retrieval, ties.publisher
        self._listening = TeacherSelector(
            bench, self.strategy, retrieval=self._retrieval, journal=journal, examined=examined
        )
        self._mark = Snapshot(weights=bench.weights())
        self._begun = False  # whether a phase has begun
        self._settled = False  # whether what came of it is decided already
        self._counted = False  # whether the registry told how many of our records it has

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections, files and teachers."""
        self._listening.teachers = Teachers(classes=self.task.classes)
        self._open.close()
        self._log.close()

    @property
    def round(self) -> int:
        """How many phases have begun, in this life and in those before with the same folder."""
        return self._journal.state.round

    @property
    def evaluation(self) -> Evaluation | None:
        """What the model was worth when this phase began; None before that was first asked."""
        return self._mark.evaluation

    def evaluate(self) -> Evaluation:
        """What the model is worth now, on the data that decisions are made on."""
        return self._retrieval.evaluated(self._bench.weights(), stage="trained")

    def discover(self) -> Teachers:
        """Seek, choose, pull and examine teachers for the coming phase, as the strategy wants it.

        What is pulled is evaluated on our own data before it is used. Without a common test set claims say nothing
        here: the newest of each other entity is pulled and chosen by what we found.
        """
        self._meet()
        return self._find(self._known())

    def publish(self) -> bool:
        """Publish the model as it is; False where the hub does not take it now, and is told later.

        Raises what the registry raises when it refuses the record for good.
        """
        self._meet()
        if not self._begun:  # then publications are what counts the phases
            self._journal.change(round=self._journal.state.round + 1)
        self._journal.change(weights=self._bench.weights())
        self._publish(self.evaluate())
        self._journal.save()
        return self._outbox.waits is None

    def keep_if_better(self, optimizer: torch.optim.Optimizer | None = None) -> bool:
        """Keep what the model has become since the last call, if the strategy finds it good enough; else undo it.

        Half-way between before and after is tried before all is undone. The optimizer's state goes back with the
        model. The first call after the start compares with the model as it was given.
        """
        if self._mark.evaluation is None:
            before = self._retrieval.evaluated(self._mark.weights, stage="initial")
            self._mark = replace(self._mark, evaluation=before)
        _, kept = self._settle(optimizer)
        self._journal.save()
        return kept

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> Teachers:
        """One whole decision round, between two phases of training; returns the teachers of the next phase.

        Keeps or undoes a phase in which teachers were heard, publishes where the strategy says so, merges where it
        seeks relatives, tells the registry how it stands, and seeks. The first call of a life only seeks.
        """
        self._meet()
        if not self._begun:
            if self.strategy.common_start and self._journal.state.origin is None:
                agree_on_initial_checkpoint(self._journal, self._bench.architecture, self._retrieval, self._publisher)
                self._bench.restore(self._journal.state.weights)
                self._mark = Snapshot(weights=self._bench.weights())
            own = self._known()
        else:
            own = self._known() if self._settled else self._decide(optimizer)
        self._begun, self._settled = True, False
        self._journal.change(round=self._journal.state.round + 1)
        self._journal.append("round-started", {})
        return self._find(own)

    def fit(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        rounds: int,
        epochs: int = 1,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Evaluation:
        """Train on private data for `rounds` phases of `epochs` each, exchanging between them; what came out.

        `batches` is gone through once an epoch; each gives samples and labels. The loss is the strategy's. Without an
        optimizer it is Adam at 1e-3.
        """
        optimizer = optimizer or torch.optim.Adam(self.model.parameters(), lr=1e-3)
        phase = self.strategy.local_phase()
        loss: Loss = nn.functional.cross_entropy
        if phase.loss == "balanced-softmax":
            counts = sum(torch.bincount(y.cpu(), minlength=self.task.classes) for _, y in batches)
            assert isinstance(counts, Tensor)
            loss = balanced_softmax(counts.to(self._bench.device))
        guidance = phase.guidance or Guidance()
        for _ in range(rounds):
            teachers = self.step(optimizer)
            self.model.train()
            for _ in range(epochs):
                for x, y in batches:
                    x, y = x.to(self._bench.device), y.to(self._bench.device)
                    said = self.model(x)
                    value = loss(said, y) + guidance.weight * teachers.loss(said, x, y)
                    optimizer.zero_grad()
                    value.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        self._settled = True
        return self._decide(optimizer)

    def _known(self) -> Evaluation:
        """What the model was worth at the mark; measured now where that is not known."""
        own = self._mark.evaluation or self.evaluate()
        self._mark = replace(self._mark, evaluation=own)
        return own

    def _decide(self, optimizer: torch.optim.Optimizer | None) -> Evaluation:
        """Keep or undo the phase that ends, publish, and merge."""
        journal = self._journal
        start, before = self._mark.weights, self._mark.evaluation
        if self._listening.teachers.used:
            own, _ = self._settle(optimizer)
        else:
            own = self.evaluate()
        journal.change(weights=self._bench.weights(), start=start, previous=before, own=own)
        if self.strategy.publishes(self._situation(own, before)):
            self._publish(own)
        request = self.strategy.after(self._situation(own, before))
        if request is not None and request[0] is Method.MERGE:
            own = self._merge(request[1], own)
        self._mark = Snapshot(
            weights=self._bench.weights(), evaluation=own, optimizer=copy_optimizer_state(optimizer)
        )
        report = partial(self._registry.report, self._membership.id, round=journal.state.round, evaluation=own)
        self._line.ask(report, None)
        journal.append("round-ended", {"accuracy": own.accuracy, "checkpoint": None})
        journal.save(stage="ended", previous=own, own=None, start=None, absorption=None)
        return own

    def _settle(self, optimizer: torch.optim.Optimizer | None) -> tuple[Evaluation, bool]:
        """Keep or undo what came since the mark, and record whom it came from."""
        start, before = self._mark.weights, self._mark.evaluation
        own, kept = self.evaluate(), True
        heard = self._listening.heard()
        if before is not None:
            after = own
            weights = self._bench.weights()
            stays, own, kept = keep_or_revert(
                self.strategy, self._retrieval, start=start, before=before, weights=weights, after=after
            )
            if stays is not weights:
                self._bench.restore(stays)
                restore_optimizer(optimizer, self._mark.optimizer)
            if heard:
                choice = self._listening.choice
                assert choice is not None, "who was heard was chosen"
                outcome = Outcome(
                    method=Method.GUIDE,
                    candidates=heard,
                    weights=stays,
                    before=before,
                    after=own if kept else after,
                    kept=kept,
                    own=own,
                    reason=explanation(self.strategy, replace(choice, absorbed=heard)),
                )
                self._record(outcome)
        self._mark = Snapshot(
            weights=self._bench.weights(), evaluation=own, optimizer=copy_optimizer_state(optimizer)
        )
        return own, kept

    def _merge(self, query: Query, own: Evaluation) -> Evaluation:
        """Average with relatives, where there are any."""
        journal = self._journal
        situation = self._situation(own, journal.state.previous)
        choice, taught = self._listening.chosen(Method.MERGE, query, situation)
        outcome = absorb_merged(self.strategy, self._retrieval, choice, journal.state, taught)
        if outcome is None:
            return own
        self._bench.restore(outcome.weights)
        journal.change(weights=outcome.weights)
        self._record(outcome)
        return outcome.own

    def _find(self, own: Evaluation) -> Teachers:
        teachers = self._listening.find(self._situation(own, self._journal.state.previous))
        self._journal.save()
        return teachers

    def _publish(self, own: Evaluation) -> None:
        # Who was heard and not judged yet is a parent of this model all the same.
        unjudged = self._listening.heard(forget=False)
        self._journal.change(parents=_merged(self._journal.state.parents, unjudged))
        self._publisher.publish(own)

    def _record(self, outcome: Outcome) -> None:
        journal = self._journal
        if outcome.kept:
            journal.change(parents=_merged(journal.state.parents, outcome.candidates))
        absorption = outcome.absorption(self._membership.id, journal.state.round)
        delivery = absorption.delivery
        self._outbox.record(delivery, key=f"{journal.key(delivery.method)}/{journal.state.seq}")
        journal.append("absorbed", absorption.detail)

    def _situation(self, own: Evaluation, previous: Evaluation | None) -> Situation:
        return self._journal.state.situation(
            own=own,
            previous=previous,
            classes=self.task.classes,
            samples=sum(self._class_counts or ()),
            architecture=self._bench.architecture,
        )

    def _meet(self) -> None:
        self._membership.meet()
        if not self._counted and self._line.up:
            # Killed between a publication and the saving of it, we would number the next one alike.
            told = self._registry.member(self._membership.id).sequence
            self._journal.change(published=max(told, self._journal.state.published))
            self._counted = True
        if self._journal.state.seq == 0:
            detail = {
                "id": self._membership.id,
                "samples": sum(self._class_counts or ()),
                "class_counts": self._class_counts or (),
                "architecture": self._bench.architecture.name,
                "device": str(self._bench.device),
                "precision": "float32",
                "threads": torch.get_num_threads(),
            }
            self._journal.append("joined", detail)
            self._journal.save()


def _execute(work: Work) -> Any:
    return work.do(lambda share: None)


def _first_state(life: str, weights: Weights) -> State:
    return initial_state(life=life, weights=weights, generator=torch.Generator().get_state())


def _merged(parents: Iterable[str], candidates: Iterable[Candidate]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*parents, *(one.knowledge.id for one in candidates))))


def _next_port(url: str) -> str:
    """The same address at the next port: a hub's vault, where nothing else is said."""
    match = re.fullmatch(r"(.*:)(\d{1,5})/?", url)
    if match is None:
        raise SettingsError(f"The registry's address {url!r} ends with no port; give that of the vault too.")
    return f"{match[1]}{int(match[2]) + 1}"
