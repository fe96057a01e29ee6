"""Tables of the vault. A change here needs a migration; a test compares the two."""

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

from kuber.services.db.column_types import UtcDateTime, text

tables = MetaData()

blob_rows = Table(
    "blobs",
    tables,
    Column("digest", text(64), primary_key=True),  # hex; its file is blobs/<2 digits>/<2 digits>/<hex>
    Column("size", BigInteger, nullable=False),
    Column("stored_at", UtcDateTime, nullable=False),
    Column("leased_until", UtcDateTime, nullable=False),  # or the time of the last unpin, if later
    Column("owner", text(200)),  # the entity that stored it first, whose quota counts it
    Index("blobs_by_lease", "leased_until"),
    Index("blobs_by_owner", "owner"),
)
# No foreign key: a pin outlives the loss of the bytes, and holds again when they are stored again.
pin_rows = Table(
    "pins",
    tables,
    Column("holder", text(200), primary_key=True),
    Column("digest", text(64), primary_key=True),
    Column("pinned_at", UtcDateTime, nullable=False),
    Index("pins_by_digest", "digest"),
)
# Results of checking a blob as an artifact of a kind, so that each blob is read once per kind.
verdict_rows = Table(
    "verdicts",
    tables,
    Column("digest", text(64), primary_key=True),
    Column("kind", text(64), primary_key=True),
    Column("fault", Text),  # NULL when it is valid
)
# Id of the storage that this index belongs to, when it is not in the same folder: one row.
storage_rows = Table("shelves", tables, Column("mark", text(64), primary_key=True))
upload_rows = Table(
    "uploads",
    tables,
    Column("id", text(32), primary_key=True),  # the file uploads/<id> has what was received
    Column("digest", text(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("owner", text(200)),
)
