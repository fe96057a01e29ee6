"""Session of an entity with its hub: join it, report to it, and the parts that exchange knowledge with it."""

import weakref
from dataclasses import replace
from functools import partial

from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import disclosed
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import HubAccess, Sharing
from kuber.entity.hub.alerts import Alerts
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.hub.candidate_models import CandidateModels
from kuber.entity.hub.discovery import Discovery
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.probe import HubProbe, Service
from kuber.entity.hub.publisher import Publisher
from kuber.entity.hub.restoration import Restoration
from kuber.entity.hub.teacher_search import TeacherSearch
from kuber.entity.hub.trust import Trust, check_last_record
from kuber.entity.state.checkpoint import Absorption
from kuber.entity.state.journal import Journal
from kuber.entity.state.storage import Storage
from kuber.errors import (
    ConflictError,
    InsufficientStorageError,
    KUberError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    SettingsError,
)


class HubSession:
    """An entity's session with registry and vault, for the life of its process."""

    def __init__(
        self,
        journal: Journal,
        evaluator: Evaluator,
        hub: HubAccess,
        storage: Storage,
        sharing: Sharing,
        *,
        independent: bool = False,
    ) -> None:
        """Open a session.

        An `independent` entity trains whether it has joined or not, and warns its owner by the logger `kuber`.
        """
        self.alerts = Alerts(journal, logged=independent)
        probe = _probe(hub) if hub.background else None
        if probe is not None:
            weakref.finalize(self, probe.close)
        self._probe = probe
        self.availability = HubAvailability(self.alerts, probe)
        trust = Trust(hub, journal, availability=self.availability, alerts=self.alerts)
        self.restoration = Restoration(
            hub, journal, availability=self.availability, alerts=self.alerts, sign=trust.sign
        )
        self.outbox = Outbox(
            hub,
            journal,
            availability=self.availability,
            alerts=self.alerts,
            restoration=self.restoration,
            pending=storage.pending,
        )
        self.search = TeacherSearch(journal, self.alerts)
        models = CandidateModels(
            journal,
            evaluator,
            hub,
            storage,
            availability=self.outbox.availability,
            trust=trust,
            alerts=self.alerts,
            search=self.search,
            independent=independent,
        )
        self.discovery = Discovery(
            journal,
            evaluator,
            hub,
            outbox=self.outbox,
            alerts=self.alerts,
            search=self.search,
            models=models,
            verified_only=sharing.verified_only,
            asks_why=independent or hub.background,
        )
        self.publisher = Publisher(journal, evaluator, sharing, outbox=self.outbox, trust=trust)
        self._journal = journal
        self._model = evaluator.model
        self._hub = hub
        self._sharing = sharing
        self._independent = independent
        self._begun = False  # whether a first attempt to join has not raised
        self._joined = False  # in this process

    @property
    def entity_id(self) -> str:
        """The entity's id at the registry."""
        entity_id = self._journal.state.entity_id
        assert entity_id is not None, "nothing is done before the entity has joined"
        return entity_id

    @property
    def joined(self) -> bool:
        """Whether the entity has ever joined the hub."""
        return self._journal.state.entity_id is not None

    def join_and_flush(self, *, retry: bool = False) -> None:
        """Join if necessary and flush the outbox; continue offline if the hub is unreachable.

        With `retry` the hub is called even if the probe has not reached it. Unless the entity is independent, raises
        ServiceUnavailableError when the hub is unreachable and the entity has never joined. The first attempt of a
        process raises ConflictError when it is another hub than the one that the entity joined, and what the registry
        raises; for an independent entity as SettingsError, which names the argument to correct.
        """
        self.availability.reset(retry=retry)
        if self._joined and self._hub.background:  # in real time, where a hub may be restored
            self._joined = self.restoration.is_member()
        if not self._joined:
            try:
                with self.availability.using("registry"):
                    self._join()
            except ServiceUnavailableError:
                if not (self._independent or self.joined):
                    raise
            except KUberError as error:
                if not self._begun and not self._independent:
                    raise
                if not self._begun:
                    wrong = self._wrong_registry() if type(error) in (ServiceError, RequestRejectedError) else None
                    if wrong is not None or not is_of_hub(error):
                        raise argument_error(wrong or error) from None
                self.alerts.failed("join", error)
            self._begun = True
        if self._joined:
            self.outbox.flush()

    def _join(self) -> None:
        journal = self._journal
        member = self._hub.registry.register(journal.name, public_key=self._hub.identity.public_key)
        hub = self._hub_id()
        check_last_record(member.sequence, journal.state.sequence)
        if journal.state.entity_id is None:
            journal.change(entity_id=member.id, sequence=member.sequence, hub=hub)
            self._log_joined()
        elif journal.state.entity_id != member.id:
            if self.restoration.is_same_hub(hub):
                journal.change(hub=hub)
                self.restoration.readdress(member)
                self._log_joined()
                self._joined = True
                return
            raise ConflictError(
                f"This is another registry than the one that entity {journal.name!r} joined. Use that one, "
                "or start a new run."
            )
        else:
            self.restoration.compare(member)
            journal.change(hub=hub)  # the same one, also after an upgrade
        if self._independent:
            self._check_vault()
            # After a kill between a publication and saving it, the next record would get the same number.
            journal.change(sequence=max(member.sequence, journal.state.sequence))
        self._joined = True

    def _hub_id(self) -> str | None:
        """Return the id of the hub; None if the owner's own registry has none."""
        hub_id = getattr(self._hub.registry, "hub_id", None)
        return None if hub_id is None else hub_id()

    def _wrong_registry(self) -> KUberError | None:
        """Return the error with which something else answers at the registry's address; None if it does not."""
        check = getattr(self._hub.registry, "check", None)
        try:
            if check is not None:
                check()
        except ServiceUnavailableError:
            return None
        except KUberError as error:
            return error
        return None

    def _check_vault(self) -> None:
        """Raise SettingsError when something else answers at the vault's address."""
        check = getattr(self._hub.vault, "check", None)
        if check is not None and not self._begun:
            try:
                with self.availability.using("vault"):
                    check()
            except ServiceUnavailableError:
                pass  # messages wait for it
            except KUberError as error:
                raise SettingsError(f"{error.message} Check the argument `vault`.") from None

    def close(self) -> None:
        """Stop trying an unreachable hub, and warn if messages to it are queued."""
        if self._probe is not None:
            self._probe.close()
        queued = len(self._journal.state.outbox)
        if queued:
            self.alerts.warn(
                f"Messages to the hub are queued ({queued}); the next process with this folder sends them."
            )

    def require_flushed(self) -> None:
        """Raise ServiceUnavailableError when messages to the hub are queued."""
        if self.outbox.blocked_by:
            raise ServiceUnavailableError(
                f"All rounds are done, but {len(self._journal.state.outbox)} messages to the hub are queued in the "
                f"entity's folder; resume when the hub is back. {self.outbox.blocked_by}"
            )

    def published_count(self) -> int:
        """Return how many records of this entity the registry has."""
        with self.availability.using("registry"):
            return self._hub.registry.member(self.entity_id).sequence

    def report(self, evaluation: Evaluation) -> None:
        """Report round and evaluation to the registry, if the owner allows it and the hub is reachable."""
        if self._sharing.report and self.joined:
            self.availability.call(partial(self._report, evaluation), None, action="report")

    def _report(self, evaluation: Evaluation) -> None:
        shown, cells = disclosed(evaluation, self._model.task)
        counts = shown if cells in ("all", "partial") else None  # of each class, or none
        with self.availability.using("registry"):
            self._hub.registry.report(self.entity_id, round=self._journal.state.round, evaluation=counts)

    def record(self, absorption: Absorption, *, key: str) -> None:
        """Record an absorption at the registry and in the log."""
        self.search.used()
        delivery = absorption.report
        if not self._sharing.report:  # a reason reveals how good the model is, class by class
            delivery = replace(delivery, reason=None)
        self.outbox.record(delivery, key=key)
        self._journal.append("absorbed", absorption.detail)

    def _log_joined(self) -> None:
        model = self._model
        detail = {
            "id": self.entity_id,
            "samples": model.sample_count or 0,
            "class_counts": model.class_counts or (),
            "architecture": model.proxy_of or model.architecture.name,
            "device": model.runtime.device,
            "precision": model.runtime.precision,
            "threads": model.runtime.threads,
        }
        if model.proxy_of is not None:
            detail["proxy"] = model.architecture.name
        self._journal.append("joined", detail)
        self._journal.save()


def is_of_hub(error: KUberError) -> bool:
    """Return whether the hub fails, by status 500, a lack of space, or a proxy that takes no body of that size."""
    if isinstance(error, RequestRejectedError):
        return error.too_large
    return type(error) in (ServiceError, InsufficientStorageError)


def argument_error(error: KUberError) -> SettingsError:
    """Return the error of an owner's argument for one with which a registry answered the first call of a process."""
    match error:
        case SettingsError():
            return error
        case NotAuthorizedError():
            hint = "Check the argument `invitation`, or `folder`, which holds the key and the token."
        case ConflictError():
            hint = "Check the arguments `hub` and `folder`: a folder belongs to one name at one hub."
        case RequestRejectedError():
            hint = "Check the argument `name`."
        case _:
            hint = "Check the argument `hub`."
    return SettingsError(f"{error.message} {hint}")


def _probe(hub: HubAccess) -> HubProbe:
    """Return a probe of those services that can be checked, as those over HTTP can."""
    ports: dict[Service, object] = {"registry": hub.registry, "vault": hub.vault}
    checks = {service: getattr(port, "check", None) for service, port in ports.items()}
    return HubProbe({service: check for service, check in checks.items() if callable(check)})
