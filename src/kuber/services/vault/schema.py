"""The tables of the vault. A change here needs a migration; a test compares the two."""

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

from kuber.services.db.column_types import UtcDateTime, text

tables = MetaData()

blob_rows = Table(
    "blobs",
    tables,
    Column("digest", text(64), primary_key=True),  # hex; its file is blobs/<2 digits>/<2 digits>/<hex>
    Column("size", BigInteger, nullable=False),
    Column("stored_at", UtcDateTime, nullable=False),
    Column("leased_until", UtcDateTime, nullable=False),  # or the time of the last unpinning, if later
    Column("owner", text(200)),  # the entity that brought it first; its quota counts it
    Index("blobs_by_lease", "leased_until"),
    Index("blobs_by_owner", "owner"),
)
# No foreign key: a promise outlives the loss of a file, and holds again when the bytes come back.
pin_rows = Table(
    "pins",
    tables,
    Column("holder", text(200), primary_key=True),
    Column("digest", text(64), primary_key=True),
    Column("pinned_at", UtcDateTime, nullable=False),
    Index("pins_by_digest", "digest"),
)
# What was found when a blob was read as an artifact of a kind, so that it is read once.
verdict_rows = Table(
    "verdicts",
    tables,
    Column("digest", text(64), primary_key=True),
    Column("kind", text(64), primary_key=True),
    Column("fault", Text),  # none where it is sound
)
# Which shelves the index is of, where it does not lie beside them: one row.
shelf_rows = Table("shelves", tables, Column("mark", text(64), primary_key=True))
upload_rows = Table(
    "uploads",
    tables,
    Column("id", text(32), primary_key=True),  # its file is uploads/<id>, as long as what has come
    Column("digest", text(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("owner", text(200)),
)
