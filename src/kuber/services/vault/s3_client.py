"""Client of an S3-compatible bucket: the requests a vault makes, and its errors in plain sentences."""

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

PART = 8 << 20  # bytes of one request of a multipart upload; S3 requires at least 5 MiB
PARTS_AT_ONCE = 2
MAX_COPY = 5 << 30  # bytes that S3 copies or accepts in one request

_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/[A-Za-z0-9!_.*'()=+-]+)*)/?")
_STATUS = re.compile(r"status code: ((\d{3}) ?[A-Za-z ]*)")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_TIMES: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    "timeout": timedelta(hours=12),  # for a whole response, which a slow reader may prolong
}
_COPY_TIMEOUT = timedelta(minutes=10)  # a server may copy gigabytes before its first byte of response
_RETRIES: "RetryConfig" = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=8),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """Metadata of one object."""

    key: str
    size: int
    modified: datetime
    tag: str | None  # ETag, which changes with the bytes


class Bucket:
    """Objects under a prefix of a bucket, by key. Safe to use from several threads.

    Failing requests are retried for some seconds, then they raise ServiceUnavailableError; a missing object raises
    FileNotFoundError. Credentials, region and endpoint come from the AWS_* variables.
    """

    def __init__(self, url: str, *, public_endpoint: str | None = None) -> None:
        """Take a URL like s3://bucket/prefix, and the endpoint for signed URLs where it differs from the vault's.

        Raises SettingsError when either, or an AWS_* variable, is invalid.
        """
        match = _URL.fullmatch(url)
        if match is None or {".", ".."} & set(match["prefix"].split("/")):
            raise SettingsError(f"{url!r} is not the address of a bucket; use the form s3://bucket/prefix.")
        self.url = url.rstrip("/")
        self._name = match["bucket"]
        self._prefix = match["prefix"].strip("/") or None
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        if endpoint is not None:
            _check_endpoint(endpoint, "AWS_ENDPOINT_URL")
        if public_endpoint is not None:
            _check_endpoint(public_endpoint, "--direct-url")
        self.location = f"{self.url} at {endpoint}" if endpoint else self.url
        self._store = self._open(endpoint)
        self._copy_store = self._open(endpoint, read_timeout=_COPY_TIMEOUT)
        self._sign_store = self._open(public_endpoint or endpoint)

    def put(self, key: str, data: bytes) -> None:
        """Store an object in one request."""
        with self._translated_errors():
            obstore.put(self._store, key, data, use_multipart=False)

    def writer(self, key: str) -> "ObjectWriter":
        """Store an object from pieces, as a multipart upload; it becomes visible when it is complete."""

        def send(pieces: Iterator[bytes]) -> None:
            with self._translated_errors():
                obstore.put(
                    self._store, key, pieces, use_multipart=True, chunk_size=PART, max_concurrency=PARTS_AT_ONCE
                )

        return ObjectWriter(send)

    def get(self, key: str, first: int = 0, last: int | None = None) -> tuple[Object, Iterator[bytes]]:
        """Return an object and an iterator over its bytes from `first` to `last`, or to its end.

        Pieces of about CHUNK bytes are fetched as they are consumed.
        """
        span: Any = {"offset": first} if last is None else (first, last + 1)
        with self._translated_errors():
            result = obstore.get(self._store, key, options={"range": span} if first or last is not None else None)
        return _object(result.meta), self._pieces(result.stream(min_chunk_size=CHUNK))

    def head(self, key: str) -> Object | None:
        """Return the metadata of an object; None when it is missing."""
        try:
            with self._translated_errors():
                return _object(obstore.head(self._store, key))
        except FileNotFoundError:
            return None

    def copy(self, key: str, to: str) -> None:
        """Copy an object inside the bucket, replacing the target."""
        with self._translated_errors():
            obstore.copy(self._copy_store, key, to)

    def delete(self, key: str) -> None:
        """Delete an object. Idempotent."""
        with self._translated_errors():
            obstore.delete(self._store, key)

    def objects(self, under: str) -> Iterator[Object]:
        """Yield the objects under a prefix of keys, in no order."""
        with self._translated_errors():
            for page in obstore.list(self._store, prefix=under, chunk_size=1000):
                yield from map(_object, page)

    def signed_url(self, method: str, key: str, lifetime: timedelta) -> str:
        """Return a URL that permits this method on one object to anyone until it expires."""
        with self._translated_errors():
            return obstore.sign(self._sign_store, method, key, lifetime)  # type: ignore[call-overload, no-any-return]

    def _open(self, endpoint: str | None, **times: timedelta) -> S3Store:
        trusted: dict[str, Any] = {}
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            try:
                with open(bundle, "rb") as file:
                    trusted["root_certificate"] = file.read()
            except OSError as error:
                raise SettingsError(
                    f"AWS_CA_BUNDLE names {bundle}, which cannot be read: {error.strerror}."
                ) from None
        client: Any = {**_TIMES, **times, **trusted, "allow_http": (endpoint or "").startswith("http://")}
        address: Any = {"endpoint": endpoint} if endpoint else {}
        try:
            return S3Store(
                self._name,
                prefix=self._prefix,
                client_options=client,
                retry_config=_RETRIES,
                disable_bulk_delete=True,  # some servers lack it, and the vault deletes one object at a time
                **address,
            )
        except (BaseError, ValueError) as error:
            raise SettingsError(f"The bucket {self.url} cannot be used: {first_line(error)}.") from None

    def _pieces(self, stream: Any) -> Iterator[bytes]:
        with self._translated_errors():
            for piece in stream:
                yield bytes(piece)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise ServiceUnavailableError(self._message(str(error))) from None
            raise
        except BaseError as error:
            log.warning("the bucket failed: %s", first_line(error))
            raise ServiceUnavailableError(self._message(str(error))) from None

    def _message(self, error: str) -> str:
        status = _STATUS.search(error)
        if "NoSuchBucket" in error:
            return (
                f"There is no bucket {self._name} for {self.location}; create it, or name another one with --store."
            )
        if "169.254.169.254" in error:  # where machines on AWS get their credentials
            return (
                f"There are no credentials for the bucket {self.url}; "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_REGION."
            )
        if status and status[2] in ("401", "403"):
            return (
                f"The bucket {self.location} refuses the vault's credentials; check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_REGION, and their permissions."
            )
        if status:
            return f"The bucket {self.location} failed with status {status[1].strip()}; try again."
        return f"The bucket {self.location} does not respond; check AWS_ENDPOINT_URL and whether its server is up."


class ObjectWriter:
    """Multipart upload of an object, sent by its own thread.

    At most one piece is queued, which bounds the memory: a writer that is faster than the network waits.
    """

    def __init__(self, send: Callable[[Iterator[bytes]], None]) -> None:
        self._send = send
        self._queue: queue.Queue[bytes | _Cancelled | None] = queue.Queue(maxsize=1)
        self._ended = False  # no more pieces are queued
        self._drained = False  # and none is left in the queue
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="object-writer", daemon=True)
        self._thread.start()

    def write(self, piece: bytes) -> None:
        """Send these bytes next. Raises the error of sending earlier ones."""
        self._raise_failure()
        self._queue.put(piece)

    def finish(self) -> None:
        """Return when the object is stored."""
        self._end(None)
        self._raise_failure()

    def cancel(self) -> None:
        """Abort the upload unless it is finished: no object is stored. Idempotent."""
        self._end(_Cancelled())

    def _end(self, mark: "_Cancelled | None") -> None:
        if not self._ended:
            self._ended = True
            self._queue.put(mark)
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._send(self._pieces())
        except BaseException as error:  # noqa: BLE001  the writing thread must learn of it, whatever it is
            self._failure = error
            while not self._drained:  # and must not wait forever
                self._next()

    def _pieces(self) -> Iterator[bytes]:
        while (piece := self._next()) is not None:
            if isinstance(piece, _Cancelled):
                raise piece
            yield piece

    def _next(self) -> "bytes | _Cancelled | None":
        piece = self._queue.get()
        self._drained = not isinstance(piece, bytes)
        return piece


class _Cancelled(Exception):
    """Raised into the upload to make the client abort it."""


def _object(meta: "ObjectMeta") -> Object:
    return Object(key=meta["path"], size=meta["size"], modified=meta["last_modified"], tag=meta["e_tag"])


def _check_endpoint(url: str, name: str) -> None:
    try:
        address = urlsplit(url)
        valid = address.scheme in ("http", "https") and address.hostname and (address.port or 80) > 0
    except ValueError:
        valid = False
    if not valid or any(letter.isspace() for letter in url):
        raise SettingsError(f"{name} is {url!r}, which is not a URL; use the form http://127.0.0.1:9000.")
