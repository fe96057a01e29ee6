"""Alerts of an entity: an event each time something goes wrong, and one warning in `logging` for each cause."""

import logging
from collections.abc import Hashable, Mapping
from typing import Any

from kuber.domain.event import Kind
from kuber.entity.state.journal import Journal
from kuber.errors import KUberError, first_line

log = logging.getLogger("kuber")


class Alerts:
    """Logs events and warns: an owner who trains reads the logger `kuber`, KUber's own commands show the events."""

    def __init__(self, journal: Journal, *, logged: bool) -> None:
        """With `logged`, warnings go to the logger `kuber`."""
        self._journal = journal
        self._logged = logged
        self._causes: set[Hashable] = set()  # that were warned of

    def add(self, kind: Kind, detail: Mapping[str, Any], sentence: str, *, cause: Hashable = None) -> None:
        """Append an event, and warn with this sentence unless its cause, by default the sentence, is known."""
        self._journal.append(kind, detail)
        self.warn(sentence, cause=cause)

    def warn(self, sentence: str, *, cause: Hashable = None) -> None:
        """Warn with this sentence unless its cause, by default the sentence, is known."""
        cause = sentence if cause is None else cause
        if cause in self._causes:
            return
        self._causes.add(cause)
        if self._logged:
            log.warning("Entity %r: %s", self._journal.name, sentence)

    def failed(self, action: str, error: BaseException) -> None:
        """Alert that an action, such as `publish`, failed, and that training continues."""
        reason = reason_of(error)
        self.add("failed", {"action": action, "reason": reason}, f"Failed to {action}; training continues. {reason}")

    def is_known(self, cause: Hashable) -> bool:
        """Return whether this cause was warned of, and is not over."""
        return cause in self._causes

    def end(self, cause: Hashable) -> None:
        """Take note that a cause is over: when it comes again, it is warned of again."""
        self._causes.discard(cause)


def reason_of(error: BaseException) -> str:
    """Return what is wrong, as a sentence."""
    return error.message if isinstance(error, KUberError) else f"{type(error).__name__}: {first_line(error)}."
