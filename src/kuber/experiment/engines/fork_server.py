"""The server that entity processes are forked from: it imports torch once for all of them."""

import signal
from multiprocessing import forkserver, get_context

CONTEXT = get_context("forkserver")
# What an entity imports, on its way to its first optimizer too.
_PRELOAD = ["kuber.experiment.run.entity_process", "torch._dynamo"]


def warm_up() -> None:
    """Start the server, which takes seconds to import torch, before its processes are needed."""
    CONTEXT.set_forkserver_preload(_PRELOAD)
    # It inherits this: Ctrl-C reaches the whole group, and it ends with us anyway.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
