"""The engine that was asked for, for as long as it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from kuber.experiment.engines.inline import Inline
from kuber.experiment.engines.processes import Processes
from kuber.experiment.engines.protocol import Engine


@contextmanager
def engine(workers: int) -> Iterator[Engine]:
    """The engine for so many workers: `inline` for none, else that many processes, ended with the context."""
    if workers == 0:
        yield Inline()
        return
    pool = Processes(workers)
    try:
        yield pool
    finally:
        pool.close()
