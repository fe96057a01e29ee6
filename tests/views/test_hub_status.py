"""The page of numbers of a hub."""

from datetime import UTC, datetime, timedelta

from kuber.views.hub_status import WIDTH, NoStatus, status_lines
from kuber.wire.status import GrowthBody, RegistryStatusBody, VaultStatusBody

NOW = datetime(2026, 9, 8, 12, 0, tzinfo=UTC)
ADDRESSES = ("http://127.0.0.1:5001", "http://127.0.0.1:5002")


def grown(total=0, day=0, week=0):
    return GrowthBody(total=total, day=day, week=week)


def registry(**changes):
    fields = {
        "entities": grown(12, 1, 5), "active": 3, "blocked": 1, "records": grown(1204, 100, 700), "visible": 1000,
        "withdrawn": 190, "quarantined": 14, "pending": 30, "tasks": 2, "deliveries": grown(900, 1, 2),
        "events": grown(1_234_567, 8, 9), "first_event": NOW - timedelta(days=90), "database_bytes": 12_300_000,
        "free_bytes": 70_100_000_000, "backup_at": NOW - timedelta(hours=7), "backup_folder": "/srv/backups/monday",
    }  # fmt: skip
    return RegistryStatusBody(version="0.1.0", at=NOW, **(fields | changes))


def vault(**changes):
    fields = {
        "blobs": grown(1014, 90, 600), "blob_bytes": grown(3_400_000_000, 10**6, 10**9), "pinned": 1000, "uploads": 2,
        "received_bytes": 3_100_000, "announced_bytes": 18_000_000, "damaged": 1, "database_bytes": 1_200_000,
        "free_bytes": 70_100_000_000, "kept_free_bytes": 1 << 30, "total_quota": 5_000_000_000,
    }  # fmt: skip
    return VaultStatusBody(version="0.1.0", at=NOW, **(fields | changes))


def test_the_page_has_all_numbers_in_80_columns():
    lines = status_lines(registry(), vault(), addresses=ADDRESSES)
    assert max(map(len, lines)) <= WIDTH
    words = [" ".join(line.split()) for line in lines]
    for expected in (
        "Registry http://127.0.0.1:5001, version 0.1.0",
        "now last day last week",
        "entities 12 +1 +5",
        "active, blocked 3 1",
        "records 1,204 +100 +700",
        "not yet verified 30",
        "events 1,234,567 +8 +9",
        "oldest 2026-06-10 12:00 UTC, 90 d ago",
        "database 12.3 MB",
        "last backup 2026-09-08 05:00 UTC, 7 h ago",
        "in /srv/backups/monday",
        "Vault http://127.0.0.1:5002, version 0.1.0",
        "bytes 3.4 GB +1.0 MB +1.0 GB",
        "of at most 5.0 GB",
        "unfinished uploads 2",
        "received 3.1 MB of 18.0 MB",
        "free disk 70.1 GB, 1.1 GB of it stay free",
    ):
        assert expected in words
    assert len(lines) <= 40


def test_a_service_that_does_not_answer_is_conspicuous_and_the_other_is_shown():
    reason = "No answer from the registry at http://127.0.0.1:5001: is it running? " * 3
    lines = status_lines(NoStatus(reason=reason), NoStatus(reason="\x1b[2J", runs=True), addresses=ADDRESSES)
    assert lines[0] == "Registry http://127.0.0.1:5001: NO ANSWER"
    assert "Vault http://127.0.0.1:5002: RUNS, BUT GIVES NO NUMBERS" in lines
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in "".join(lines)
    assert any("blobs" in line for line in status_lines(NoStatus(reason="Gone."), vault(), addresses=ADDRESSES))


def test_unknown_numbers_are_dashes():
    sparse = {"first_event": None, "free_bytes": None, "backup_at": None, "backup_folder": None}
    lines = status_lines(registry(**sparse), vault(uploads=0, free_bytes=None), addresses=("x" * 200, "y"))
    words = [" ".join(line.split()) for line in lines]
    assert {"oldest -", "free disk -", "last backup none known"} <= set(words)
    assert max(map(len, lines)) <= WIDTH
