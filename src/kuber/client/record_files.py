"""Files of a record, written into a folder under names that its id alone decides."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from kuber.client.record_signature import check_publisher, check_signed, replaced_by_hub
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import ONNX, WEIGHTS, Knowledge
from kuber.domain.member import Member
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, KnowledgeNotFoundError, SettingsError
from kuber.files import write_atomically
from kuber.wire.registry import KnowledgeBody

ENDINGS = {WEIGHTS: "safetensors", ONNX: "onnx"}  # of the files of each kind that this version knows

log = logging.getLogger("kuber")


def signed_by(record: Knowledge, registry: HttpRegistry, pinned_keys: Mapping[str, str]) -> Member:
    """Return the publisher of a record, who has signed it.

    `pinned_keys` are public keys by entity id, as an entity of this machine first saw them. Raises
    CorruptKnowledgeError when the record is signed by nobody or somebody else.
    """
    try:
        publisher = registry.member(record.entity)
    except KnowledgeNotFoundError:
        raise CorruptKnowledgeError(f"The registry does not know the publisher of {record.id}.") from None
    hub = registry.hub_id()
    check_publisher(publisher, pinned_keys.get(publisher.id), hub=hub)
    check_signed(record, publisher, hub=hub)
    return publisher


def check_origin(record: Knowledge, registry: HttpRegistry, pinned_keys: Mapping[str, str]) -> None:
    """Check who has signed a record, as `signed_by` does; warn if only the registry says who that is."""
    publisher = signed_by(record, registry, pinned_keys)
    pinned = pinned_keys.get(publisher.id)
    replaced = replaced_by_hub(publisher, pinned)
    if replaced is not None:
        log.warning(
            "Entity %r signs with a new key from its record %d on; the hub signed it, as the former one was lost.",
            publisher.name,
            replaced.since,
        )
    if pinned is None:
        key = publisher.key_for(record.sequence)
        log.warning(
            "The record is signed with the key %s, which only the registry says is that of entity %r.",
            key.public_key if key else "",
            publisher.name,
        )


def check_kinds(record: Knowledge) -> None:
    """Raise IncompatibleKnowledgeError when the record has a file of a kind that is unknown here."""
    unknown = min(set(record.artifacts) - set(ENDINGS), default=None)
    if unknown is not None:
        raise IncompatibleKnowledgeError(
            f"The record {record.id} has a file of the kind {unknown[:100]!r}, which this version of KUber does not "
            "know; upgrade, or do not use it."
        )


def write_files(record: Knowledge, vault: HttpVault, folder: Path) -> Iterator[Path]:
    """Write each file of a record and the record as JSON into `folder`; yield each path when it is written.

    A link in the place of a file is replaced, never followed. Raises SettingsError when a file cannot be written.
    """
    check_kinds(record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    for kind, artifact in sorted(record.artifacts.items()):
        yield _write(folder / f"{record.id}.{ENDINGS[kind]}", vault.get(artifact.digest))
    text = KnowledgeBody.of(record).model_dump_json(indent=2, exclude_none=True) + "\n"
    yield _write(folder / f"{record.id}.json", text.encode())


def _write(path: Path, data: bytes) -> Path:
    try:
        write_atomically(path, data, durable=False)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}; name another folder.") from None
    return path
