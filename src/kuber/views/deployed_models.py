"""Deployed models in words. An older result does not name them; they are those of the last round."""

from collections import Counter
from collections.abc import Iterable

from kuber.domain.deployment import CHOICES, Choice
from kuber.views.formatting import percent
from kuber.views.run import DeployedView

NAMES: dict[Choice, str] = {"last": "last round", "best": "best round", "average": "average of rounds"}
_PHRASES: dict[Choice, str] = {"last": "the last round", "best": "the best round", "average": "an average of rounds"}


def deployed_counts(choices: Iterable[Choice | None]) -> dict[Choice, int] | None:
    """Return how many models are of each choice; None if no choice is known."""
    counts = Counter(choice for choice in choices if choice is not None)
    return {choice: counts[choice] for choice in CHOICES} if counts else None


def deployed_phrase(choices: Iterable[Choice | None]) -> str | None:
    """Return, for instance, "1 of the best round, 3 of an average of rounds"; None if no choice is known."""
    counts = deployed_counts(choices) or {}
    return ", ".join(f"{count} of {_PHRASES[choice]}" for choice, count in counts.items() if count) or None


def deployed_sentence(choices: Iterable[Choice | None]) -> str | None:
    """Say which models the accuracies are of; None if no choice is known."""
    phrase = deployed_phrase(choices)
    return None if phrase is None else f"Deployed models: {phrase}."


def describe_deployed(deployed: DeployedView) -> str:
    """Describe the model that one entity would use, with its accuracy."""
    match deployed.model:
        case "last":
            model = f"that of round {deployed.round}, the last"
        case "best":
            model = f"that of round {deployed.round}, the best"
        case "average":
            model = f"an average of rounds up to {deployed.round}"
    if deployed.share is not None:
        model = f"a private network, and with a share of {deployed.share:.0%} its proxy, {model}"
    return f"{model}; {percent(deployed.accuracy)} on the common test set"
