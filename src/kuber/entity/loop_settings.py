"""Settings of an entity with a custom loop: what its owner passes in, checked and converted."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from kuber.domain.evaluation import Evaluation
from kuber.entity.hub.access import Approve
from kuber.errors import SettingsError

log = logging.getLogger("kuber")

Publishing = Literal["auto", "ask", "never"] | Callable[[Evaluation, int], bool]
Counts = Literal["exact", "rounded"] | None

PUBLISHING = ("auto", "ask", "never")


def approval(publishing: Publishing) -> Approve:
    """Return the function that is asked before each publication. Raises SettingsError naming `publishing`."""
    if callable(publishing):
        return _owner_decides(publishing)
    if publishing not in PUBLISHING:
        raise SettingsError(
            f"publishing is {publishing!r}; give one of {', '.join(PUBLISHING)}, or a function of an evaluation and "
            "a round."
        )
    if publishing == "ask":
        if not (sys.stdin and sys.stdin.isatty()):
            raise SettingsError('publishing="ask" asks at the terminal, and this process has none.')
        return _ask
    return lambda evaluation, round: publishing == "auto"


def published_counts(class_counts: tuple[int, ...] | None, counts: Counts) -> tuple[int, ...] | None:
    """Return the class counts to publish: exact, rounded to tens, or none. Raises SettingsError naming `counts`."""
    if counts is not None and counts not in ("exact", "rounded"):
        raise SettingsError(f'counts is {counts!r}; give "exact", "rounded" or None.')
    if counts is None or class_counts is None:
        return None
    return class_counts if counts == "exact" else tuple((count + 5) // 10 * 10 for count in class_counts)


def check_restores(restores: Sequence[object]) -> tuple[object, ...]:
    """Return the objects to restore with an undone phase. Raises SettingsError naming `restores`."""
    if not isinstance(restores, Sequence) or isinstance(restores, str):
        raise SettingsError(f"restores is a {type(restores).__name__}; give a list of objects, such as [scheduler].")
    for item in restores:
        if not (callable(getattr(item, "state_dict", None)) and callable(getattr(item, "load_state_dict", None))):
            raise SettingsError(
                f"restores has a {type(item).__name__}, which lacks state_dict or load_state_dict; give objects that "
                "have both."
            )
    return tuple(restores)


def _owner_decides(publishing: Callable[[Evaluation, int], bool]) -> Approve:
    def approve(evaluation: Evaluation, round: int) -> bool:
        try:
            return bool(publishing(evaluation, round))
        except Exception as error:  # noqa: BLE001 - the owner's function may raise anything
            log.warning(
                "The function publishing raised %s: %s; round %d is not published.",
                type(error).__name__,
                error,
                round,
            )
            return False

    return approve


def _ask(evaluation: Evaluation, round: int) -> bool:
    model = f"round {round}" if round else "the initial checkpoint"
    try:
        answer = input(f"Publish {model}, with {evaluation.accuracy:.1%} on the validation data? [y/N]: ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")
