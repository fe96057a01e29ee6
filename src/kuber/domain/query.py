"""Query for knowledge, and pages of what matches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Generic, Literal, TypeVar

from kuber.domain.digest import Digest
from kuber.domain.verification import Standing
from kuber.errors import RequestRejectedError

MAX_LIMIT = 1000

T = TypeVar("T")
Order = Literal["accuracy", "newest", "oldest", "classes"]
RECALL_UNIT = 1_000_000  # recalls are ranked as whole millionths, so that every database ranks them alike


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Filter and order of a discover request; a field at its default does not filter.

    The registry's query parameters are made of these fields and their descriptions.
    """

    task: Annotated[str | None, "Name of the task."] = None
    test_set: Annotated[Digest | None, "Digest of the common test set."] = None
    min_accuracy: Annotated[float | None, "Least accuracy, verified or else claimed."] = None
    exclude_entity: Annotated[str | None, "Id of an entity whose knowledge is left out."] = None
    initial: Annotated[bool | None, "Only initial checkpoints; or, when false, only trained knowledge."] = None
    origin: Annotated[Digest | None, "Digest of the initial checkpoint that the weights descend from."] = None
    standing: Annotated[Standing | None, "Only knowledge of this standing at the hub."] = None
    pending: Annotated[bool, "Only knowledge that the hub has not verified yet."] = False
    latest: Annotated[
        bool,
        "Only the newest knowledge of each entity on each task; with `initial` false and no `origin` the newest "
        "that is not clearly worse than an earlier one.",
    ] = False
    classes: Annotated[tuple[int, ...], "Indices of labels; with order `classes`, and only then."] = ()
    order: Annotated[
        Order, "Best, newest or oldest first, or best mean recall on `classes` first; older first among equals."
    ] = "accuracy"
    limit: Annotated[int, "Entries of one page."] = 100
    cursor: Annotated[str | None, "Cursor of the previous page."] = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise ValueError(f"a page has 1 to {MAX_LIMIT} entries")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise ValueError("a minimum accuracy is between 0 and 1")
        if (self.order == "classes") != bool(self.classes):
            raise ValueError("order 'classes' needs classes, and no other order takes any")
        if any(label < 0 for label in self.classes) or len(self.classes) > MAX_LIMIT:
            raise ValueError(f"classes are at most {MAX_LIMIT} indices of labels, from 0")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes are distinct")

    @property
    def only_sound(self) -> bool:
        """Whether a collapsed model is no entity's latest.

        An entity that merges models of one origin needs the newest, also one of low accuracy: a local phase that
        begins beyond an average may end below it.
        """
        return self.latest and self.initial is False and self.origin is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[T]):
    """One page of a listing; `cursor` continues with the next page and is None on the last.

    A page may have fewer items than its query's limit although others follow: its size in bytes is limited too.
    """

    items: tuple[T, ...]
    cursor: str | None
    omitted: tuple[str, ...] = ()  # ids of items that are too large for any page

    def __repr__(self) -> str:
        items = ", ".join(map(repr, self.items))
        return f"<Page: {items or 'empty'}; {'last page' if self.cursor is None else 'more follow'}>"


def pages(page: Callable[[str | None], Page[T]]) -> Iterator[Page[T]]:
    """Yield all pages; `page(cursor)` returns the page at a cursor, the first one for None."""
    cursor = None
    while True:
        found = page(cursor)
        yield found
        if found.cursor is None or found.cursor == cursor:
            return
        cursor = found.cursor


def all_pages(page: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """Yield the items of all pages, as above."""
    for found in pages(page):
        yield from found.items


def collect(
    discover: Callable[[Query], Page[T]], query: Query, *, keep: Callable[[T], bool] = lambda item: True
) -> Page[T]:
    """Return as many items as the query's limit as one page, from several pages if they end early.

    Items that are not to be kept count too, but do not stay in memory.
    """
    items: list[T] = []
    omitted: list[str] = []
    cursor, left = query.cursor, query.limit
    while True:
        page = discover(replace(query, cursor=cursor, limit=left))
        items += filter(keep, page.items)
        omitted += page.omitted
        left -= len(page.items)
        if page.cursor is None or page.cursor == cursor or left <= 0:
            return Page(items=tuple(items), cursor=page.cursor, omitted=tuple(omitted))
        cursor = page.cursor


def check_limit(limit: int) -> None:
    """Raise RequestRejectedError unless a page can have this many entries."""
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestRejectedError(f"A page has 1 to {MAX_LIMIT} entries; request that many.")


def invalid_cursor() -> RequestRejectedError:
    """Return the error about a cursor that is not of the listing."""
    return RequestRejectedError("The cursor is not one of this listing; start again without it.")
