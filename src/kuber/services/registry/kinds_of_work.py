"""Kinds of work that a registry does in threads: what waits for the vault holds no thread of what does not."""

from collections.abc import Callable
from typing import TypeVar

from kuber.domain.auth import Caller
from kuber.services.http.bulkhead import Bulkhead

T = TypeVar("T")


class RegistryWork:
    """Bulkheads of a registry. Reads have none: they run in the event loop."""

    def __init__(self) -> None:
        self.publications = Bulkhead(
            "The registry waits for its vault to answer other requests", threads=24, queue=96, seconds=3.0
        )
        self.writes = Bulkhead(
            "The registry waits for its database to store other changes", threads=24, queue=256, seconds=5.0
        )
        # The operator and the verifier act when something is wrong: entities cannot take their threads.
        self.operation = Bulkhead(
            "The registry waits for its database to store other changes", threads=4, queue=64, seconds=10.0
        )

    async def write(self, caller: Caller | None, call: Callable[[], T]) -> T:
        """Run a change of the database for this caller, None for one who has not joined yet."""
        if caller is not None and caller.entity is None:
            return await self.operation.run(call)
        return await self.writes.run(call, by="" if caller is None else caller.entity)
