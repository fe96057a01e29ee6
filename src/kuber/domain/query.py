"""What an entity asks the registry for, and what comes back."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from kuber.domain.digest import Digest
from kuber.domain.verification import Standing

MAX_LIMIT = 1000

T = TypeVar("T")
Order = Literal["accuracy", "newest", "oldest", "classes"]
RECALL_UNIT = 1_000_000  # recalls are ranked as whole millionths, so that every database ranks them alike


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A search for knowledge; a field left at None does not filter."""

    task: str | None = None  # its name
    test_set: Digest | None = None  # digest of the common test set
    min_accuracy: float | None = None  # verified or else claimed, at least this
    exclude_entity: str | None = None  # id; usually the asker's own
    initial: bool | None = None  # only initial checkpoints; or only what was trained
    origin: Digest | None = None  # only what descends from the initial checkpoint of this digest
    standing: Standing | None = None  # only what the hub found to be so
    pending: bool = False  # only what the hub has not looked at
    latest: bool = False  # only the newest of each entity on each task
    classes: tuple[int, ...] = ()  # indices of labels, for order "classes"
    order: Order = "accuracy"  # best first; by age; or best mean recall on `classes`. Older first among equals
    limit: int = 100  # of one page, 1 to MAX_LIMIT
    cursor: str | None = None  # from the page before

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise ValueError(f"a page has 1 to {MAX_LIMIT} entries")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise ValueError("a minimum accuracy lies between 0 and 1")
        if (self.order == "classes") != bool(self.classes):
            raise ValueError("the order by classes needs classes, and no other order does")
        if any(label < 0 for label in self.classes) or len(self.classes) > MAX_LIMIT:
            raise ValueError(f"classes are up to {MAX_LIMIT} indices of labels, from 0")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("each of the classes is named once")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[T]):
    """One page of a listing; `cursor` asks for the next one and is None on the last."""

    items: tuple[T, ...]
    cursor: str | None

    def __repr__(self) -> str:
        items = ", ".join(map(repr, self.items))
        return f"<Page: {items or 'empty'}; {'last page' if self.cursor is None else 'more follow'}>"
