"""Samples of what is published, and the two services as processes."""

import dataclasses
import ipaddress
import json
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft, TensorSpec
from kuber.domain.task import Task
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.store import VaultStore
from kuber.signing import Identity
from kuber.wire import DraftBody, EnrolmentBody, enrolment_bytes, record_bytes

from .blob_places import Folder, S3Bucket

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


@pytest.fixture(params=["folder", "bucket"])
def vault_place(request, tmp_path):
    """Where a vault's bytes lie: each test runs on both."""
    if request.param == "folder":
        return Folder(tmp_path)
    return S3Bucket(tmp_path, request.getfixturevalue("bucket_url"), request.getfixturevalue("s3").url)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where a registry keeps what it stores."""
    return tmp_path / "registry.sqlite" if request.param == "sqlite" else request.getfixturevalue("registry_database")


# For tests that look into the file.
on_sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def registry_store(place, vault_store):
    times = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in range(10**6))
    store = RegistryStore(place, vault=vault_store, clock=lambda: next(times))
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


@pytest.fixture
def draft_of(vault_store):
    """Make a draft of an entity whose blobs are in the vault, for any store."""

    def make(entity, correct, *, total=(10, 10), **changes):
        return Draft(
            entity=entity,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: vault_store.put(safetensors_file(ARCHITECTURE.manifest))},
            evaluation=Evaluation(test_set=TEST_SET, correct=correct, total=total),
            **{"round": 1} | changes,
        )

    return make


@pytest.fixture
def stores(registry_database, vault_store):
    """Two stores on one database, as two processes would have them."""
    with (
        closing(RegistryStore(registry_database, vault=vault_store)) as one,
        closing(RegistryStore(registry_database, vault=vault_store)) as other,
    ):
        yield one, other


@pytest.fixture
def signed_by():
    """The draft, signed with the key of an identity."""
    return lambda identity, draft: dataclasses.replace(draft, signature=identity.sign(record_bytes(draft)))


class Service:
    """A service as a process, with its address."""

    def __init__(self, folder, *arguments, command=("-m", "kuber")):
        self.log = folder / f"{arguments[0]}.log"
        run = [sys.executable, *command, *arguments, "--stop-with-stdin"]
        self.process = subprocess.Popen(
            [*run, *([] if "--port" in arguments else ["--port", "0"]), "--secret", str(folder / "secret")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        self.line = self.process.stdout.readline().strip()
        self.url = self.line.rpartition(" ")[2]
        self.secret = folder / "secret"
        headers = {"Authorization": f"Bearer {self.secret.read_text()}"} if self.secret.exists() else {}
        self.client = httpx.Client(base_url=self.url, trust_env=False, headers=headers)

    def close(self):
        self.client.close()
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def hub_services(tmp_path_factory, new_port):
    """A vault and a registry that anybody may join; their clients show the secret of the hub."""
    folder = tmp_path_factory.mktemp("hub")
    port = str(new_port())
    address = f"http://127.0.0.1:{port}"
    told = ["--data", str(folder / "vault"), "--max-blob-bytes", "3000000", "--registry", address]
    vault = Service(folder, "vault", *told)
    told = ["--data", str(folder / "registry"), "--vault", vault.url, "--port", port, "--open-enrolment"]
    registry = Service(folder, "registry", *told)
    yield vault, registry
    registry.close()
    vault.close()


@pytest.fixture(scope="session")
def vault_service(hub_services):
    return hub_services[0]


@pytest.fixture(scope="session")
def registry_service(hub_services):
    return hub_services[1]


class Asker:
    """Somebody with a key, who wants to join."""

    def __init__(self):
        self.identity = Identity.new()
        self._sequences = {}

    def wish(self, name, **changes):
        told = {"name": name, "public_key": self.identity.public_key, "at": datetime.now(UTC)} | changes
        wish = EnrolmentBody(**told)
        return wish.model_dump(mode="json") | {"signature": self.identity.sign(enrolment_bytes(wish))}

    def signed(self, body, key):
        """The draft, signed; one key, one sequence."""
        sequence = self._sequences.setdefault(key, len(self._sequences) + 1)
        told = body | {"sequence": sequence, "signature": None}
        try:
            signature = self.identity.sign(record_bytes(DraftBody.model_validate(told).value()))
        except ValidationError:
            signature = "0" * 128  # it is refused before it is looked at
        return told | {"signature": signature}


class Person(Asker):
    """An entity that asks a registry by hand."""

    def __init__(self, registry, name):
        super().__init__()
        self.answer = registry.client.post("/v1/entities", json=self.wish(name))
        enrolled = self.answer.json()
        self.id = enrolled["member"]["id"]
        self.headers = {"Authorization": f"Bearer {enrolled['token']}"}


@pytest.fixture
def asker():
    return Asker


@pytest.fixture(scope="session")
def published_body(vault_service):
    """The draft of a person, as JSON, whose weights are in the vault."""

    def make(person):
        blob = safetensors_file(ARCHITECTURE.manifest)
        digest = Digest.of(blob)
        vault_service.client.put(f"/v1/blobs/{digest}", content=blob).raise_for_status()
        draft = Draft(
            entity=person.id,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: Artifact(digest=digest, size=len(blob))},
            evaluation=Evaluation(test_set=TEST_SET, correct=(3, 4), total=(10, 10)),
            round=1,
        )
        return DraftBody.of(draft).model_dump(mode="json")

    return make


@pytest.fixture(scope="session")
def enrolled(registry_service):
    """The entity of this name, enrolled once."""
    people = {}

    def enrol(name):
        if name not in people:
            people[name] = Person(registry_service, name)
        return people[name]

    return enrol


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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for this machine that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "chain.pem", folder / "key.pem"
