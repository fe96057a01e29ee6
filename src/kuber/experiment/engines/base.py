"""The interface of an engine, which executes work steps. Results are the same bits on every engine."""

from concurrent.futures import Future
from typing import Any, Protocol

from kuber.entity.work.steps import Work

THREADS = 1  # of each work step: a sum over several threads would be rounded in another order


class Engine(Protocol):
    """Executes work steps, several at a time. `submit` may be called from any thread."""

    def submit(self, work: Work) -> Future[Any]:
        """Start a work step. The future holds its result, or the error that it raised."""


def ignore_progress(share: float) -> None:
    """Ignore a report of progress."""
