"""Belonging to a hub: joining it once, and meeting it again at the start of each round."""

from kuber.domain.ports import Registry
from kuber.entity.journal import Journal
from kuber.entity.line import Line
from kuber.entity.outbox import Outbox
from kuber.errors import ConflictError, ServiceUnavailableError
from kuber.signing import Identity


class Membership:
    """Who an entity is at its hub."""

    def __init__(
        self, name: str, identity: Identity, *, registry: Registry, journal: Journal, line: Line, outbox: Outbox
    ) -> None:
        self._name = name
        self._identity = identity
        self._registry = registry
        self._journal = journal
        self._line = line
        self._outbox = outbox
        self._joined = False  # in this life of the process

    @property
    def id(self) -> str:
        """That the registry gave us."""
        member = self._journal.state.member
        assert member is not None, "nothing is done before the entity has joined"
        return member

    def meet(self) -> None:
        """Join, if that is not done, and tell what waits. Where the hub is away, we go on without it.

        Raises ServiceUnavailableError when it is away and has never known us, ConflictError when it is another one.
        """
        journal = self._journal
        self._line.renew()
        if not self._joined:
            try:
                member = self._registry.register(self._name, public_key=self._identity.public_key)
            except ServiceUnavailableError as error:
                if journal.state.member is None:
                    raise
                self._line.lose(error)
                return
            if journal.state.member is None:
                journal.change(member=member.id, published=member.sequence)
            elif journal.state.member != member.id:
                raise ConflictError(
                    f"This is another registry than the one that entity {self._name!r} joined; go on with that one, "
                    "or start a new run."
                )
            self._joined = True
        self._outbox.deliver()

    def check_told(self) -> None:
        """ServiceUnavailableError when the hub has not heard everything."""
        if self._outbox.waits:
            raise ServiceUnavailableError(
                f"All rounds are done, and {len(self._journal.state.errands)} messages to the hub wait in the "
                f"entity's folder; go on with it when the hub is back. {self._outbox.waits}"
            )
