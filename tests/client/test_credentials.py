"""Credentials shared by two processes of one entity."""

from pathlib import Path

import pytest

from kuber.client.credentials import TOKEN_FILE, Credentials
from kuber.client.known_hubs import HUBS_FILE
from kuber.client.registry import HttpRegistry
from kuber.domain.query import Query
from kuber.errors import NotAuthorizedError


def test_a_reader_continues_after_the_entity_enrolled_again(hub, samples, tmp_path: Path) -> None:
    first = Credentials(path=tmp_path / TOKEN_FILE)
    with HttpRegistry(hub.registry, credentials=first) as joined:
        joined.register(samples.name())
        reading = Credentials(path=tmp_path / TOKEN_FILE)
        with HttpRegistry(hub.registry, credentials=reading, patience=0) as reader:
            reader.discover(Query(limit=1))
            joined.register(samples.name())  # which ends the token of before
            reader.discover(Query(limit=1))
            joined.register(samples.name())
            (tmp_path / HUBS_FILE).write_text((tmp_path / HUBS_FILE).read_text().replace(first.token(), "t" * 43))
            with pytest.raises(NotAuthorizedError):
                reader.discover(Query(limit=1))
