"""The fork server: imports torch once, and every entity and worker process is forked from it."""

import signal
from multiprocessing import forkserver, get_context

CONTEXT = get_context("forkserver")
# The modules that an entity process imports, also for its first optimizer.
_PRELOAD = ["kuber.experiment.run.entity_process", "torch._dynamo"]


def warm_up() -> None:
    """Start the fork server, which takes seconds to import torch, before its processes are needed."""
    CONTEXT.set_forkserver_preload(_PRELOAD)
    # The server inherits this handler: Ctrl-C reaches the whole group, and the server ends with this process anyway.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
