"""Parts of an entity with a custom loop: folder, journal, session with the hub, and decisions between phases."""

from contextlib import ExitStack
from pathlib import Path

from kuber.client.credentials import KEY_FILE, TOKEN_FILE
from kuber.domain.ports import Registry, Vault
from kuber.domain.strategy import Strategy
from kuber.entity.absorption import Absorber
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import Sharing
from kuber.entity.hub.connection import connect
from kuber.entity.hub.session import HubSession
from kuber.entity.own_prior import OwnPrior
from kuber.entity.owned_model import OwnedModel
from kuber.entity.phase import Phases
from kuber.entity.round import Round
from kuber.entity.safeguard import Safeguard
from kuber.entity.state.entity_folder import claim_folder
from kuber.entity.state.loop_state import load_identity, load_state
from kuber.entity.teacher_selection import TeacherSelector


class LoopParts:
    """Makes the parts of an entity from its checked settings; `close` closes those that are open."""

    def __init__(
        self,
        name: str,
        strategy: Strategy,
        owned: OwnedModel,
        prior: OwnPrior,
        *,
        folder: Path | str | None,
        hub: str | tuple[Registry, Vault],
        vault: str | None,
        invitation: str | None,
        patience: float,
        ca: Path | None,
        sharing: Sharing,
        max_candidates: int,
        publishes: bool,
        owner_evaluates: bool,
    ) -> None:
        """Claim the folder until this object is closed or nothing refers to it.

        Raises SettingsError when another entity has it, or an argument about the hub is of no use.
        """
        self.closed = False
        self._open = ExitStack()
        try:
            self.home, self._claimed = claim_folder(name, folder)
            self._open.callback(self._claimed.release)
            identity = load_identity(self.home / KEY_FILE)
            access = connect(
                hub,
                vault,
                identity,
                self.home / TOKEN_FILE,
                invitation=invitation,
                patience=patience,
                ca=ca,
                stack=self._open,
            )
            self.journal, storage = load_state(self.home, name, self._open)
            evaluator = Evaluator(owned.adapter, self.journal)
            self.session = HubSession(self.journal, evaluator, access, storage, sharing, independent=True)
            self._open.callback(self.session.close)
        except BaseException:
            self._open.close()
            raise
        self.safeguard = Safeguard(self.session.alerts)
        round = Round(strategy, owned.adapter, self.journal, self.session)
        self.selector = TeacherSelector(
            strategy, owned.adapter, self.session.discovery, round, max_candidates=max_candidates, prior=prior
        )
        self.phases = Phases(
            strategy,
            owned,
            journal=self.journal,
            session=self.session,
            round=round,
            evaluator=evaluator,
            absorber=Absorber(strategy, evaluator, self.journal, storage.weights),
            selector=self.selector,
            prior=prior,
            safeguard=self.safeguard,
            publishes=publishes,
            owner_evaluates=owner_evaluates,
        )

    def close(self) -> None:
        """Close connections and files, and let others use the folder."""
        self.closed = True
        self._open.close()
