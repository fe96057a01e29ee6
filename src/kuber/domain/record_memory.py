"""Memory that records and members take in this process, about: caches are bounded by it."""

from kuber.domain.knowledge import Architecture, Knowledge, Manifest
from kuber.domain.member import Member
from kuber.domain.task import Task

_NUMBER, _ITEM = 40, 300  # bytes of a number in a tuple, and of an entry of a dictionary with its value


def task_memory(task: Task) -> int:
    """Return the bytes of memory of a task."""
    return _ITEM + sum(80 + 2 * len(label) for label in task.labels)


def architecture_memory(architecture: Architecture) -> int:
    """Return the bytes of memory of an architecture."""
    arguments = sum(
        _ITEM + len(name) + (_NUMBER * len(value) if isinstance(value, tuple) else 2 * len(str(value)))
        for name, value in architecture.arguments.items()
    )
    return _ITEM + arguments + manifest_memory(architecture.manifest)


def manifest_memory(manifest: Manifest) -> int:
    """Return the bytes of memory of a manifest."""
    return sum(_ITEM + 2 * len(name) + _NUMBER * len(spec.shape) for name, spec in manifest.items())


def own_memory(record: Knowledge) -> int:
    """Return the bytes of memory of a record without its task and architecture, which records share."""
    counts = 2 * len(record.evaluation.total) + len(record.class_counts or ())
    if record.verification is not None and record.verification.evaluation is not None:
        counts += 2 * len(record.verification.evaluation.total)
    return 5 * _ITEM + _NUMBER * counts + _ITEM * len(record.artifacts) + 100 * len(record.parents)


def record_memory(record: Knowledge) -> int:
    """Return the bytes of memory of a record with its task and architecture."""
    return own_memory(record) + task_memory(record.task) + architecture_memory(record.architecture)


def member_memory(member: Member) -> int:
    """Return the bytes of memory of a member."""
    return 5 * _ITEM + 2 * len(member.name) + 3 * _ITEM * len(member.keys)
