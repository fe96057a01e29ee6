"""Messages of the status of both services: one page of numbers for the operator."""

from kuber.wire.base import Count, Escaped, Message, Time


class GrowthBody(Message):
    """A number of things that are there now, and of those that came within the last day and week."""

    total: Count
    day: Count
    week: Count


class RegistryStatusBody(Message):
    """Numbers of a registry."""

    version: Escaped
    at: Time
    entities: GrowthBody
    active: Count  # entities that have sent this process a request within the last 5 to 10 minutes
    blocked: Count  # entities
    records: GrowthBody
    visible: Count  # records, neither withdrawn nor quarantined
    withdrawn: Count
    quarantined: Count
    pending: Count  # visible records that the verifier has not judged
    tasks: Count
    deliveries: GrowthBody
    events: GrowthBody
    first_event: Time | None = None
    removed_events: Count = 0  # because of their age
    removed_records: Count = 0
    database_bytes: Count
    free_bytes: Count | None = None  # of the disk with the data folder
    backup_at: Time | None = None  # the last one that `kuber hub backup` has made of this folder
    backup_folder: Escaped | None = None


class VaultStatusBody(Message):
    """Numbers of a vault."""

    version: Escaped
    at: Time
    blobs: GrowthBody
    blob_bytes: GrowthBody
    pinned: Count  # blobs
    uploads: Count  # unfinished
    received_bytes: Count  # of these, here
    announced_bytes: Count
    damaged: Count  # blobs that a scrub has set aside
    database_bytes: Count
    free_bytes: Count | None = None  # of the disk with the data folder
    kept_free_bytes: Count = 0
    total_quota: Count = 0  # bytes that all entities together may store; 0: no limit
