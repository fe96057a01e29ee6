"""Direct transfers where the environment cannot be used: the vault transfers the bytes, and the log says so once."""

from datetime import UTC, datetime

import pytest

from kuber.client.presigned import BACKOFF_SECONDS, PresignedTransfer
from kuber.domain.blob import DirectUrl

TARGET = DirectUrl(url="https://bucket.example/blob", expires_at=datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("variable", ["ALL_PROXY", "SSL_CERT_FILE"])
def test_a_bucket_that_cannot_be_used_is_left_alone(monkeypatch, caplog, variable):
    for name in ("https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "socks://nowhere")
    now = 0.0
    transfer = PresignedTransfer(secure=True, ca=None, monotonic=lambda: now)
    assert not transfer.put(TARGET, b"bytes")
    assert not transfer.available
    now = BACKOFF_SECONDS
    assert transfer.available
    assert not transfer.put(TARGET, b"bytes")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("kuber", "WARNING")
    assert f"variable {variable} names" in record.message
    assert record.message.endswith("Until then models pass through the vault, not directly to its bucket.")
    transfer.close()


def test_a_file_of_authorities_that_is_no_use_is_no_error(tmp_path, caplog):
    transfer = PresignedTransfer(secure=False, ca=tmp_path / "missing.pem")
    assert not transfer.put(TARGET, b"bytes")
    assert "missing.pem cannot be used" in caplog.text
