"""Samples of everything that is published, and both services as processes that all tests share."""

import importlib.util
import json
import random
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuber.client.registry import HttpRegistry
from kuber.domain.auth import OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft, Knowledge, TensorSpec
from kuber.domain.query import Page
from kuber.domain.task import Task
from kuber.wire import record_bytes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long forms too, which take hours: `make soak`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long forms are tests of their own; without --soak they are not selected."""
    if not config.getoption("--soak"):
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


BYTES = {"BF16": 2, "F32": 4, "I64": 8, "U8": 1}


class Samples:
    """Values that no other test uses, so that tests can share a service."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self.test_set = Digest.of(self.token.encode())
        self.task = Task(
            name=f"parity-{self.token}", labels=("even", "odd"), input_shape=(1, 2, 2), test_set=self.test_set
        )
        self.architecture = Architecture(
            name=f"line-{self.token}",
            arguments={"width": 4, "bias": True, "scale": 0.5, "kind": "plain", "blocks": (1, 2)},
            manifest={"weight": TensorSpec(dtype="F32", shape=(2, 4)), "steps": TensorSpec(dtype="I64", shape=())},
        )
        self._fills = count(1)

    def name(self, word: str = "entity") -> str:
        """A name that nobody has."""
        return f"{word}-{self.token}"

    def weights(self, manifest: Mapping[str, TensorSpec] | None = None) -> bytes:
        """A safetensors file with these tensors, each time with other numbers."""
        header: dict[str, Any] = {"__metadata__": {"sample": f"{self.token}-{next(self._fills)}"}}
        position = 0
        for name, spec in (self.architecture.manifest if manifest is None else manifest).items():
            size = prod(spec.shape) * BYTES[spec.dtype]
            offsets = [position, position + size]
            header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
            position += size
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + bytes(position)

    def evaluation(self, *correct: int, total: int = 100) -> Evaluation:
        """An evaluation on this sample's common test set."""
        right = correct or (60, 40)
        return Evaluation(test_set=self.test_set, correct=right, total=(total,) * len(right))

    def draft(self, entity: str, weights: Artifact, **changes: Any) -> Draft:
        """A draft of this entity, with its fields as given."""
        fields: dict[str, Any] = {
            "entity": entity,
            "task": self.task,
            "architecture": self.architecture,
            "artifacts": {WEIGHTS: weights},
            "evaluation": self.evaluation(),
            "round": 1,
        }
        return Draft(**fields | changes)


@pytest.fixture
def samples() -> Samples:
    return Samples()


@pytest.fixture
def clock() -> Callable[[], datetime]:
    """A clock that goes on by one second at each look."""
    seconds = count()
    return lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))


@pytest.fixture
def ids() -> Callable[[], str]:
    """Ids that count up."""
    numbers = count()
    return lambda: f"id-{next(numbers):06d}"


@pytest.fixture
def walk() -> Callable[[Callable[[str | None], Page[Any]]], list[Any]]:
    """Every item of a listing, page by page."""

    def every(page: Callable[[str | None], Page[Any]]) -> list[Any]:
        items: list[Any] = []
        cursor: str | None = None
        while True:
            found = page(cursor)
            items += found.items
            if found.cursor is None:
                return items
            assert found.items
            cursor = found.cursor

    return every


class S3:
    """A server of buckets, as a process, with everything in its memory."""

    def __init__(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        told = iter(self.process.stderr.readline, "")
        self.url = next(line for line in told if "Running on " in line).split()[-1]
        # It tells of each request: somebody has to read that.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def bucket(self, name: str | None = None) -> str:
        """Make a bucket; a new one when it has no name."""
        name = name or f"bucket-{uuid.uuid4().hex[:12]}"
        allowed = (
            "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        )
        httpx.put(
            f"{self.url}/{name}", headers={"Authorization": allowed}, trust_env=False, verify=False
        ).raise_for_status()
        return name

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A running server of buckets, which the AWS_* variables of this process name."""
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server
    server.close()


@pytest.fixture
def bucket_url(s3: S3) -> str:
    """A place in a new bucket, for `--store`."""
    return f"s3://{s3.bucket()}/hub/vault"


def unused_port() -> int:
    """A port that nobody listens on, below those that the system gives to connections meanwhile."""
    for port in random.SystemRandom().sample(range(15_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("a hundred ports in a row are taken")


@pytest.fixture(scope="session")
def new_port() -> Callable[[], int]:
    """Finds a port for a service that another has to be told of before it starts."""
    return unused_port


@contextmanager
def service(name: str, folder: Path, *options: str) -> Iterator[str]:
    """The address of a service that runs, as a process, for as long as this is open."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "kuber", name, "--data", str(folder / name), "--stop-with-stdin"]
    if "--port" not in options:
        command += ["--port", "0"]
    if "--secret" not in options:
        command += ["--secret", str(folder / "secret")]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        words = process.stdout.readline().split()
        assert words, f"the {name} did not start: {log.read_text(encoding='utf-8')}"
        yield words[-1]
    finally:
        process.stdin.close()
        assert process.wait(20) == 0, log.read_text(encoding="utf-8")
        process.stdout.close()


@pytest.fixture
def launched() -> Callable[..., AbstractContextManager[str]]:
    """Run one service, as `service` does."""
    return service


class SigningRegistry(HttpRegistry):
    """Signs as an entity does; the same draft under the same key is the same record."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sequences: dict[tuple[str, str, bytes], int] = {}

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        place = draft.entity, key, record_bytes(draft)
        told = replace(draft, sequence=self._sequences.setdefault(place, len(self._sequences) + 1))
        signature = self.credentials.identity.sign(record_bytes(told))
        return super().publish(replace(told, signature=signature), key=key)


@pytest.fixture
def signing_registry() -> type[SigningRegistry]:
    return SigningRegistry


@dataclass(frozen=True)
class Hub:
    """A running registry and vault, and what opens them."""

    registry: str
    vault: str
    secret: str  # of the two services
    operator: str  # token
    verifier: str  # token


@contextmanager
def running(folder: Path, *options: str, tls: tuple[str, ...] = (), keeping: tuple[str, ...] = ()) -> Iterator[Hub]:
    """A hub of one's own; `options` are the registry's, `keeping` the vault's, `tls` those of both."""
    secret = folder / "secret"
    port = unused_port()
    address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    with service("vault", folder, "--registry", address, "--secret", str(secret), *tls, *keeping) as vault:
        told = ("--port", str(port), "--vault", vault, "--secret", str(secret), *tls)
        with service("registry", folder, *told, *options) as registry:
            files = (OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE)
            operator, verifier = ((folder / "registry" / name).read_text() for name in files)
            yield Hub(registry=registry, vault=vault, secret=secret.read_text(), operator=operator, verifier=verifier)


@pytest.fixture(scope="session")
def unlimited_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that anybody may join and ask as often as they like; what is in it can be anything."""
    free = ("--requests-per-minute", "0")
    with running(tmp_path_factory.mktemp("unlimited"), "--open-enrolment", *free, keeping=free) as hub:
        yield hub


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A running hub that anybody may join. Tests share it: look only at what is your own."""
    with running(tmp_path_factory.mktemp("hub"), "--open-enrolment") as hub:
        yield hub


@pytest.fixture(scope="session")
def vault_url(hub: Hub) -> str:
    """The address of the shared vault."""
    return hub.vault


@pytest.fixture(scope="session")
def registry_url(hub: Hub) -> str:
    """The address of the shared registry."""
    return hub.registry


@pytest.fixture(scope="session")
def proxied() -> Callable[..., AbstractContextManager[Any]]:
    """A proxy to a target that harms what passes through it: see proxy.py."""
    spec = importlib.util.spec_from_file_location("kuber_tests_proxy", Path(__file__).with_name("proxy.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[..., AbstractContextManager[Any]] = module.proxy
    return made


@pytest.fixture(scope="session")
def running_hub() -> Callable[..., AbstractContextManager[Hub]]:
    """Start a hub in a folder, for tests of a module that share it."""
    return running


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Start a hub that nobody else uses, with these options of its registry."""
    with ExitStack() as stack:
        yield lambda *options, **more: stack.enter_context(running(tmp_path, *options, **more))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A real PostgreSQL server."""
    from .postgres import running as served  # loads the stores, which most tests of other parts do without

    with served() as server:
        yield server


@pytest.fixture
def registry_database(postgres: Any) -> Iterator[str]:
    """The address of a new PostgreSQL database with the tables of the registry."""
    with postgres.database("registry") as url:
        yield url


@pytest.fixture
def vault_database(postgres: Any) -> Iterator[str]:
    """The address of a new PostgreSQL database with the tables of the vault."""
    with postgres.database("vault") as url:
        yield url
