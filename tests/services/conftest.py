"""Samples of what is published, and the two services as processes."""

import dataclasses
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Draft, TensorSpec
from kuber.domain.task import Task
from kuber.services.registry_store import RegistryStore
from kuber.services.vault_store import VaultStore

TEST_SET = Digest.of(b"common test set")
TASK = Task(name="parity", labels=("even", "odd"), input_shape=(1, 2, 2), test_set=TEST_SET)
ARCHITECTURE = Architecture(
    name="line", arguments={"width": 4, "bias": True}, manifest={"w": TensorSpec(dtype="F32", shape=(2, 4))}
)


def safetensors_file(manifest, *, fill=0):
    """A safetensors file with these tensors, every byte `fill`."""
    header, position = {}, 0
    for name, spec in manifest.items():
        size = 4
        for length in spec.shape:
            size *= length
        header[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes([fill]) * position


@pytest.fixture
def safetensors():
    return safetensors_file


@pytest.fixture
def vault_store(tmp_path):
    store = VaultStore(tmp_path / "vault")
    yield store
    store.close()


@pytest.fixture
def registry_store(tmp_path, vault_store):
    times = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in range(10**6))
    store = RegistryStore(tmp_path / "registry.sqlite", vault=vault_store, clock=lambda: next(times))
    yield store
    store.close()


@pytest.fixture
def entity(registry_store):
    return registry_store.register("entity-0").id


@pytest.fixture
def draft(vault_store, entity):
    """Make a draft whose blobs are in the vault; other fields as given."""

    def make(correct=(3, 4), *, fill=0, **changes):
        base = Draft(
            entity=entity,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: vault_store.put(safetensors_file(ARCHITECTURE.manifest, fill=fill))},
            evaluation=Evaluation(test_set=TEST_SET, correct=correct, total=(10, 10)),
            round=1,
        )
        return dataclasses.replace(base, **changes)

    return make


class Service:
    """A service as a process, with its address."""

    def __init__(self, folder, *arguments, command=("-m", "kuber")):
        self.log = folder / f"{arguments[0]}.log"
        self.process = subprocess.Popen(
            [sys.executable, *command, *arguments, "--port", "0", "--stop-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        self.line = self.process.stdout.readline().strip()
        self.url = self.line.rpartition(" ")[2]
        self.client = httpx.Client(base_url=self.url, trust_env=False)

    def close(self):
        self.client.close()
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def vault_service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault")
    service = Service(folder, "vault", "--data", str(folder), "--max-blob-bytes", "3000000")
    yield service
    service.close()


@pytest.fixture(scope="session")
def registry_service(tmp_path_factory, vault_service):
    folder = tmp_path_factory.mktemp("registry")
    service = Service(folder, "registry", "--data", str(folder), "--vault", vault_service.url)
    yield service
    service.close()


@pytest.fixture
def start(tmp_path):
    """Start a service of one's own; it is stopped at the end."""
    started = []

    def run(*arguments, **options):
        started.append(Service(tmp_path, *arguments, **options))
        return started[-1]

    yield run
    for service in started:
        service.close()
