"""Client of a bucket, with a real S3 server: streaming both ways, and errors in one sentence."""

import sys
from datetime import timedelta

import httpx
import pytest
from typer.testing import CliRunner

from kuber.cli.app import app
from kuber.errors import KUberError, ServiceUnavailableError, SettingsError
from kuber.services.vault.s3_client import PART, Bucket
from kuber.services.vault.storage import CHUNK


@pytest.fixture
def bucket(bucket_url):
    return Bucket(bucket_url)


def refusal(url, folder, *more):
    """Return the error with which `kuber vault` ends, before it creates its folder."""
    data = folder / "vault"
    arguments = [
        "vault",
        "--store",
        url,
        "--data",
        str(data),
        "--secret",
        str(folder / "secret"),
        "--port",
        "0",
        *more,
    ]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, KUberError), result.output
    assert not data.exists()
    assert result.exception.message.count("\n") == 0
    return result.exception


@pytest.mark.parametrize(
    "url",
    [
        "bucket",
        "http://127.0.0.1/bucket",
        "s3://",
        "s3:///x",
        "s3://UPPER",
        "s3://b",
        "s3://bucket/../x",
        "s3://bu ck",
    ],
)
def test_an_invalid_url_is_refused(tmp_path, url):
    error = refusal(url, tmp_path)
    assert error.exit_code == 2
    assert "s3://bucket/prefix" in error.message


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://x", "http://", "http://x:99999999", "http://a b"])
def test_an_invalid_endpoint_is_refused(tmp_path, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    error = refusal("s3://bucket", tmp_path)
    assert error.exit_code == 2
    assert "AWS_ENDPOINT_URL" in error.message


def test_an_unknown_bucket_is_an_error(tmp_path, s3):
    error = refusal("s3://no-such-bucket/x", tmp_path)
    assert error.exit_code == 4
    assert f"There is no bucket no-such-bucket for s3://no-such-bucket/x at {s3.url}" in error.message


def test_refused_credentials_are_an_error(tmp_path, s3, bucket_url):
    def check_credentials(after_requests):
        httpx.post(
            f"{s3.url}/moto-api/reset-auth", content=after_requests, trust_env=False, verify=False
        ).raise_for_status()

    check_credentials("0")
    try:
        error = refusal(bucket_url, tmp_path)
    finally:
        check_credentials("inf")
    assert error.exit_code == 4
    assert "refuses the vault's credentials; check AWS_ACCESS_KEY_ID" in error.message


def test_an_unreachable_endpoint_is_an_error(tmp_path, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    error = refusal("s3://bucket", tmp_path)
    assert error.exit_code == 4
    assert "s3://bucket at http://127.0.0.1:9 does not respond" in error.message


def test_a_missing_obstore_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    for module in ("vault.s3_client", "vault.s3"):
        monkeypatch.delitem(sys.modules, f"kuber.services.{module}", raising=False)
    error = refusal("s3://bucket", tmp_path)
    assert error.exit_code == 2
    assert "pip install 'kuber[s3]'" in error.message


def test_a_missing_certificate_bundle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "absent.pem"))
    assert "AWS_CA_BUNDLE" in refusal("s3://bucket", tmp_path).message


def test_a_blob_limit_beyond_what_a_bucket_copies_is_refused(tmp_path):
    error = refusal("s3://bucket", tmp_path, "--max-blob-bytes", str((5 << 30) + 1))
    assert error.exit_code == 2
    assert "smaller --max-blob-bytes" in error.message


def test_a_folder_that_holds_blobs_cannot_be_used_with_a_bucket(tmp_path):
    (tmp_path / "vault" / "blobs").mkdir(parents=True)
    arguments = [
        "vault",
        "--store",
        "s3://bucket",
        "--data",
        str(tmp_path / "vault"),
        "--secret",
        str(tmp_path / "s"),
    ]
    error = CliRunner().invoke(app, [*arguments, "--port", "0"]).exception
    assert isinstance(error, SettingsError)
    assert "choose another --data" in error.message


def test_a_multipart_upload_becomes_one_object(bucket):
    data = bytes(range(256)) * (3 * PART // 256 + 1)
    writer = bucket.writer("folder/large")
    for start in range(0, len(data), CHUNK):
        writer.write(data[start : start + CHUNK])
    assert bucket.head("folder/large") is None
    writer.finish()
    found, pieces = bucket.get("folder/large", 5, len(data) - 7)
    pieces = list(pieces)
    assert b"".join(pieces) == data[5:-6]
    assert len(pieces) > 1
    assert found == bucket.head("folder/large")
    assert [found.key for found in bucket.objects("folder")] == ["folder/large"]
    assert list(bucket.objects("fold")) == []


def test_a_writer_to_a_missing_bucket_fails_without_blocking(s3, monkeypatch):
    writer = Bucket("s3://no-such-bucket").writer("large")

    def write_pieces():
        for _ in range(100):
            writer.write(bytes(CHUNK))

    with pytest.raises(ServiceUnavailableError, match="no bucket"):
        write_pieces()
    with pytest.raises(ServiceUnavailableError, match="no bucket"):
        writer.finish()
    writer.cancel()


def test_a_signed_url_permits_one_method_on_one_object_at_the_public_endpoint(s3, bucket_url):
    bucket = Bucket(bucket_url)
    put, get = (bucket.signed_url(method, "staging/one", timedelta(seconds=60)) for method in ("PUT", "GET"))
    assert httpx.put(put, content=b"bytes", trust_env=False, verify=False).status_code == 200
    assert httpx.get(get, headers={"Range": "bytes=1-"}, trust_env=False, verify=False).content == b"ytes"
    public = Bucket(bucket_url, public_endpoint="https://bytes.example.org").signed_url(
        "GET", "x", timedelta(seconds=60)
    )
    assert public.startswith(f"https://bytes.example.org/{bucket_url.removeprefix('s3://')}/x?")
    assert "X-Amz-Expires=60" in public
    with pytest.raises(SettingsError, match="--direct-url"):
        Bucket(bucket_url, public_endpoint="bytes.example.org")
