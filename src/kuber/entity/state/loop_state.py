"""State of an entity with a custom loop: its key, its journal and its storage, from its folder."""

import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from kuber.domain.event import utc_now
from kuber.entity.state.checkpoint import Checkpoints, initial_state
from kuber.entity.state.event_log import FILE_NAME, EventLog, rewind
from kuber.entity.state.journal import Journal
from kuber.entity.state.storage import Storage
from kuber.errors import CorruptKnowledgeError, ServiceError, SettingsError
from kuber.signing import Identity

CACHE_BYTES = 1 << 30  # of pulled models on disk


def load_identity(path: Path) -> Identity:
    """Return the entity's key, or make one. Raises SettingsError naming `folder`."""
    try:
        return Identity.load_or_create(path)
    except ServiceError as error:
        raise SettingsError(f"folder {path.parent} cannot be used: {error.message}") from None


def load_state(home: Path, name: str, stack: ExitStack) -> tuple[Journal, Storage]:
    """Load the state in the folder, or make a first one, and drop events that it does not count.

    `stack` closes the event log. Raises SettingsError naming `folder`.
    """
    try:
        state = Checkpoints(home, holds_weights=False).latest()
        rewind(home / FILE_NAME, reached={name: state.next_event if state else 0})
        event_log = EventLog(home / FILE_NAME, clock=utc_now)
    except CorruptKnowledgeError as error:
        raise SettingsError(f"folder {home} cannot be resumed; pass another one. {error.message}") from None
    except OSError as error:
        raise SettingsError(f"folder {home} cannot be used: {error.strerror}; pass another folder.") from None
    stack.callback(event_log.close)
    session_id = uuid.uuid4().hex  # a new one each time: what the owner did in between is not known
    if state is None:
        generator = torch.Generator(device="cpu").get_state()
        state = initial_state(session_id=session_id, weights={}, generator=generator)
    storage = Storage.in_folder(home, event_log, cache_bytes=CACHE_BYTES, holds_weights=False)
    return Journal(name, replace(state, session_id=session_id), storage, tolerant=True), storage
