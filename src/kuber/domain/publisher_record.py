"""Track record of a publisher: the findings of an entity about its models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

MAX_REFUSALS = 6  # from which on an absence grows no longer
FORGIVEN = 8  # sound models in a row that make one refusal forgotten


@dataclass(frozen=True, kw_only=True, slots=True)
class PublisherRecord:
    """Findings of one entity about the models of another. Absences are counted in its own rounds."""

    sound: int = 0  # models in a row that were as good as their claims, and of use
    useless: int = 0  # models in a row that were sound and of no use
    refused: int = 0  # models refused, less those forgiven
    until: int = 0  # round before which nothing of this publisher is examined

    @property
    def proven(self) -> bool:
        """Whether the last model examined was sound and of use."""
        return self.sound > 0

    def is_absent(self, round: int) -> bool:
        """Return whether the publisher has no place among the candidates of this round."""
        return round < self.until


NEW = PublisherRecord()  # of a publisher of whom nothing has been examined

PublisherRecords = Mapping[str, PublisherRecord]  # by entity id


def after_sound(record: PublisherRecord) -> PublisherRecord:
    """Return the track record after a model that was as good as its claim, and of use."""
    sound = record.sound + 1
    if sound < FORGIVEN:
        return replace(record, sound=sound, useless=0)
    return replace(record, sound=1, useless=0, refused=max(0, record.refused - 1))


def after_useless(record: PublisherRecord, round: int) -> PublisherRecord:
    """Return the track record after a sound model of no use: absent for 0, 1, 2, 4 and then 8 rounds.

    The first one costs nothing: its publisher may have just begun to train.
    """
    useless = min(record.useless + 1, 5)
    absent = 1 << useless >> 2
    return replace(record, sound=0, useless=useless, until=max(record.until, round + 1 + absent if absent else 0))


def after_refusal(record: PublisherRecord, round: int, *, false_claim: bool) -> PublisherRecord:
    """Return the track record after a model that was refused: absent for 2, 4, 8, ... and at most 64 rounds.

    A damaged file may be an accident: it costs half as many rounds, and the first one none.
    """
    refused = min(record.refused + 1, MAX_REFUSALS)
    absent = 1 << refused if false_claim else 1 << refused >> 2 << 1
    return replace(record, sound=0, refused=refused, until=max(record.until, round + 1 + absent if absent else 0))
