"""A bucket of an S3-compatible store: what is asked of it, and one sentence for what it refuses."""

import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from kuber.errors import ServiceUnavailableError, SettingsError, first_line
from kuber.services.vault.storage import CHUNK

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

PART = 8 << 20  # bytes of an object that are sent in one request; S3 takes no fewer than 5 MiB
PARTS_AT_ONCE = 2
MAX_COPY = 5 << 30  # bytes that S3 copies, or takes, in one request

_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/[A-Za-z0-9!_.*'()=+-]+)*)/?")
_STATUS = re.compile(r"status code: ((\d{3}) ?[A-Za-z ]*)")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_TIMES: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    "timeout": timedelta(hours=12),  # of a whole answer, which a slow reader may draw out
}
_COPY_SECONDS = timedelta(minutes=10)  # a store may copy gigabytes without a word
_RETRIES: "RetryConfig" = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=8),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """What a bucket tells of one object."""

    key: str
    size: int
    modified: datetime
    tag: str | None  # its ETag: other bytes have another


class Bucket:
    """The objects under a prefix of a bucket, by their keys. Safe to use from several threads.

    What fails is tried again for some seconds, then it is a ServiceUnavailableError; an object that is not there is a
    FileNotFoundError. Credentials, region and endpoint are those of the AWS_* variables.
    """

    def __init__(self, url: str, *, clients: str | None = None) -> None:
        """`url` is like s3://bucket/prefix, `clients` the endpoint by which others reach it, when it is another one.

        SettingsError when either is none, or when an AWS_* variable has a value that cannot be.
        """
        match = _URL.fullmatch(url)
        if match is None or {".", ".."} & set(match["prefix"].split("/")):
            raise SettingsError(f"{url!r} is no address of a bucket; give one like s3://bucket/prefix.")
        self.url = url.rstrip("/")
        self._name = match["bucket"]
        self._prefix = match["prefix"].strip("/") or None
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        if endpoint is not None:
            _check_endpoint(endpoint, "AWS_ENDPOINT_URL")
        if clients is not None:
            _check_endpoint(clients, "--direct-url")
        self.place = f"{self.url} at {endpoint}" if endpoint else self.url
        self._store = self._open(endpoint)
        self._copying = self._open(endpoint, read_timeout=_COPY_SECONDS)
        self._signing = self._open(clients or endpoint)

    def put(self, key: str, data: bytes) -> None:
        """Store an object in one request."""
        with self._answering():
            obstore.put(self._store, key, data, use_multipart=False)

    def sender(self, key: str) -> "Sender":
        """Store an object whose bytes come piece by piece, in parts; nobody sees it before it is whole."""

        def send(pieces: Iterator[bytes]) -> None:
            with self._answering():
                obstore.put(
                    self._store, key, pieces, use_multipart=True, chunk_size=PART, max_concurrency=PARTS_AT_ONCE
                )

        return Sender(send)

    def get(self, key: str, first: int = 0, last: int | None = None) -> tuple[Object, Iterator[bytes]]:
        """An object, and its bytes from `first` to `last`, or to its end, in pieces of about CHUNK bytes.

        The pieces are fetched as they are taken.
        """
        asked: Any = {"offset": first} if last is None else (first, last + 1)
        with self._answering():
            result = obstore.get(self._store, key, options={"range": asked} if first or last is not None else None)
        return _object(result.meta), self._pieces(result.stream(min_chunk_size=CHUNK))

    def head(self, key: str) -> Object | None:
        """What there is under a key; None when nothing is."""
        try:
            with self._answering():
                return _object(obstore.head(self._store, key))
        except FileNotFoundError:
            return None

    def copy(self, key: str, to: str) -> None:
        """Copy an object inside the bucket, over what is there."""
        with self._answering():
            obstore.copy(self._copying, key, to)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with self._answering():
            obstore.delete(self._store, key)

    def objects(self, under: str) -> Iterator[Object]:
        """What there is under a folder of keys, in no order."""
        with self._answering():
            for page in obstore.list(self._store, prefix=under, chunk_size=1000):
                yield from map(_object, page)

    def signed(self, method: str, key: str, lifetime: timedelta) -> str:
        """A URL by which anybody may do this with one object for so long."""
        with self._answering():
            return obstore.sign(self._signing, method, key, lifetime)  # type: ignore[call-overload, no-any-return]

    def _open(self, endpoint: str | None, **times: timedelta) -> S3Store:
        authority: dict[str, Any] = {}
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            try:
                with open(bundle, "rb") as file:
                    authority["root_certificate"] = file.read()
            except OSError as error:
                raise SettingsError(
                    f"AWS_CA_BUNDLE names {bundle}, which cannot be read: {error.strerror}."
                ) from None
        client: Any = {**_TIMES, **times, **authority, "allow_http": (endpoint or "").startswith("http://")}
        told: Any = {"endpoint": endpoint} if endpoint else {}
        try:
            return S3Store(
                self._name,
                prefix=self._prefix,
                client_options=client,
                retry_config=_RETRIES,
                disable_bulk_delete=True,  # not every server has it, and one object is removed at a time here
                **told,
            )
        except (BaseError, ValueError) as error:
            raise SettingsError(f"The bucket {self.url} cannot be used: {first_line(error)}.") from None

    def _pieces(self, stream: Any) -> Iterator[bytes]:
        with self._answering():
            for piece in stream:
                yield bytes(piece)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise ServiceUnavailableError(self._sentence(str(error))) from None
            raise
        except BaseError as error:
            log.warning("the bucket failed: %s", first_line(error))
            raise ServiceUnavailableError(self._sentence(str(error))) from None

    def _sentence(self, error: str) -> str:
        status = _STATUS.search(error)
        if "NoSuchBucket" in error:
            return f"There is no bucket {self._name} for {self.place}; make it, or name another one with --store."
        if "169.254.169.254" in error:  # where a machine of Amazon's asks for its own
            return (
                f"There are no credentials for the bucket {self.url}; "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_REGION."
            )
        if status and status[2] in ("401", "403"):
            return (
                f"The bucket {self.place} refuses the vault's credentials; check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_REGION, and what they may do there."
            )
        if status:
            return f"The bucket {self.place} failed with status {status[1].strip()}; try again."
        return f"The bucket {self.place} gives no answer; check AWS_ENDPOINT_URL and whether its server is up."


class Sender:
    """An object on its way to a bucket: a thread of its own sends what is written here.

    At most one piece waits, so that memory stays bounded; a sender that is slower than what comes holds that back.
    """

    def __init__(self, send: Callable[[Iterator[bytes]], None]) -> None:
        self._send = send
        self._pieces: queue.Queue[bytes | _Cut | None] = queue.Queue(maxsize=1)
        self._ended = False  # nothing is queued any more
        self._drained = False  # nor anything left to take
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._carry, name="sender", daemon=True)
        self._thread.start()

    def write(self, piece: bytes) -> None:
        """Send these bytes next; what went wrong with those before is raised here."""
        self._check()
        self._pieces.put(piece)

    def end(self) -> None:
        """Return when the object is stored."""
        self._finish(None)
        self._check()

    def cut(self) -> None:
        """Break off, unless it ended: nothing of the object stays."""
        self._finish(_Cut())

    def _finish(self, mark: "_Cut | None") -> None:
        if not self._ended:
            self._ended = True
            self._pieces.put(mark)
            self._thread.join()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _carry(self) -> None:
        try:
            self._send(self._taken())
        except BaseException as error:  # noqa: BLE001  whoever writes must learn of it, whatever it is
            self._failure = error
            while not self._drained:  # nor must they wait for ever
                self._take()

    def _taken(self) -> Iterator[bytes]:
        while (piece := self._take()) is not None:
            if isinstance(piece, _Cut):
                raise piece
            yield piece

    def _take(self) -> "bytes | _Cut | None":
        piece = self._pieces.get()
        self._drained = not isinstance(piece, bytes)
        return piece


class _Cut(Exception):
    """Makes the store give up an object that is half sent."""


def _object(meta: "ObjectMeta") -> Object:
    return Object(key=meta["path"], size=meta["size"], modified=meta["last_modified"], tag=meta["e_tag"])


def _check_endpoint(url: str, name: str) -> None:
    try:
        address = urlsplit(url)
        sound = address.scheme in ("http", "https") and address.hostname and (address.port or 80) > 0
    except ValueError:
        sound = False
    if not sound or any(letter.isspace() for letter in url):
        raise SettingsError(f"{name} is {url!r}, which is no address; give one like http://127.0.0.1:9000.")
