"""Cache of records by row number, bounded in number and in bytes of memory."""

from dataclasses import dataclass

from kuber.domain.knowledge import Knowledge
from kuber.domain.record_memory import architecture_memory, own_memory, task_memory

CACHED = 40_000  # records
CACHED_BYTES = 160 << 20

# The verification as JSON, the operator's reason for a quarantine, the id of the record that it became a copy of.
Judgement = tuple[str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class CachedRecord:
    """A record, the judgement that it was read with, and its size as JSON, about."""

    judgement: Judgement
    record: Knowledge
    size: int


class RecordCache:
    """Two generations of records: when the newer one has half of the room, it becomes the older, which is dropped.

    A record that is read again moves to the newer one. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._recent = _Generation()
        self._older = _Generation()

    def __len__(self) -> int:
        return len(self._recent.records | self._older.records)

    @property
    def memory(self) -> int:
        """Bytes of memory, about."""
        return self._recent.memory + self._older.memory

    def get(self, seq: int, judgement: Judgement) -> CachedRecord | None:
        """Return the record with this row number, if it was read with this judgement."""
        found = self._recent.records.get(seq) or self._older.records.get(seq)
        return found if found is not None and found.judgement == judgement else None

    def put(self, seq: int, cached: CachedRecord) -> None:
        """Cache a record."""
        generation = self._recent
        if len(generation.records) >= CACHED // 2 or generation.memory >= CACHED_BYTES // 2:
            self._older, self._recent = generation, _Generation()
        self._recent.add(seq, cached)  # another thread may have replaced it meanwhile


class _Generation:
    """Records, and the memory that they take: a task or an architecture that several share is counted once."""

    def __init__(self) -> None:
        self.records: dict[int, CachedRecord] = {}
        self.memory = 0
        self._shared: set[int] = set()  # ids of tasks and architectures, which the records keep alive

    def add(self, seq: int, cached: CachedRecord) -> None:
        """Add a record; one with the same row number is replaced."""
        record, earlier = cached.record, self.records.get(seq)
        if earlier is cached:
            return
        self.memory += own_memory(record) - (0 if earlier is None else own_memory(earlier.record))
        self.records[seq] = cached
        if id(record.task) not in self._shared:
            self._shared.add(id(record.task))
            self.memory += task_memory(record.task)
        if id(record.architecture) not in self._shared:
            self._shared.add(id(record.architecture))
            self.memory += architecture_memory(record.architecture)
