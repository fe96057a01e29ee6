"""The engine `inline`: work steps run in the calling process."""

from concurrent.futures import Future
from typing import Any

import torch

from kuber.entity.work.steps import Work
from kuber.experiment.engines.base import THREADS, ignore_progress


class InlineEngine:
    """Executes each work step in `submit`."""

    def submit(self, work: Work) -> Future[Any]:
        future: Future[Any] = Future()
        threads = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        try:
            future.set_result(work.do(ignore_progress))
        except Exception as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)
        finally:
            torch.set_num_threads(threads)
        return future
