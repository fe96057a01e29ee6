"""What an engine is: whoever does work steps. The results are the same bits on every one."""

from concurrent.futures import Future
from typing import Any, Protocol

from kuber.entity.work.steps import Work

THREADS = 1  # of each work step: a sum over several threads would be rounded in another order


class Engine(Protocol):
    """Does work steps; several may be under way. `submit` may be called from any thread."""

    def submit(self, work: Work) -> Future[Any]:
        """The result to be, or the error that the work raised."""
        ...


def ignore_progress(share: float) -> None:
    """Takes a report of progress that nobody reads."""
