"""Registry and vault as processes, and entities that send requests to them by hand."""

import subprocess
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import ValidationError

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Artifact, Draft
from kuber.signing import Identity
from kuber.wire.registry import DraftBody, EnrolmentBody
from kuber.wire.signing_payloads import enrolment_bytes, record_bytes
from tests.fixtures.commands import KUBER, Command
from tests.fixtures.hub import unused_port
from tests.fixtures.waiting import LIMIT

from .records import ARCHITECTURE, TASK, TEST_SET, safetensors_file


class Service:
    """A service as a process, with its address and a client that shows the secret of the hub."""

    def __init__(self, folder, *arguments, program=KUBER):
        self.log = folder / f"{arguments[0]}.log"
        port = [] if "--port" in arguments else ["--port", "0"]
        with self.log.open("w") as errors:
            self.process = Command(
                *arguments, "--stop-with-stdin", *port, "--secret", str(folder / "secret"),
                program=program, stdin=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self.line = self.process.stdout.readline().strip()
        self.url = self.line.rpartition(" ")[2]
        self.secret = folder / "secret"
        headers = {"Authorization": f"Bearer {self.secret.read_text()}"} if self.secret.exists() else {}
        self.client = httpx.Client(base_url=self.url, trust_env=False, headers=headers, timeout=LIMIT)

    def close(self):
        self.client.close()
        self.process.close()


@pytest.fixture(scope="session")
def hub_services(process, tmp_path_factory):
    """Vault and registry with open enrolment; their clients send the secret of the hub."""
    folder = tmp_path_factory.mktemp("hub")
    port = str(unused_port())
    address = f"http://127.0.0.1:{port}"
    options = ["--data", str(folder / "vault"), "--max-blob-bytes", "3000000", "--registry", address]
    vault = Service(folder, "vault", *options)
    options = ["--data", str(folder / "registry"), "--vault", vault.url, "--port", port, "--open-enrolment"]
    registry = Service(folder, "registry", *options)
    yield vault, registry
    registry.close()
    vault.close()


@pytest.fixture(scope="session")
def vault_service(hub_services):
    return hub_services[0]


@pytest.fixture(scope="session")
def registry_service(hub_services):
    return hub_services[1]


class Applicant:
    """An owner of a key, who asks to join."""

    def __init__(self):
        self.identity = Identity.generate()
        self._sequences = {}

    def enrolment(self, name, **changes):
        fields = {"name": name, "public_key": self.identity.public_key, "at": datetime.now(UTC)} | changes
        body = EnrolmentBody(**fields)
        return body.model_dump(mode="json") | {"signature": self.identity.sign(enrolment_bytes(body))}

    def signed(self, body, key):
        """Return the draft, signed; the same key has the same sequence number."""
        sequence = self._sequences.setdefault(key, len(self._sequences) + 1)
        unsigned = body | {"sequence": sequence, "signature": None}
        try:
            signature = self.identity.sign(record_bytes(DraftBody.model_validate(unsigned).value()))
        except ValidationError:
            signature = "0" * 128  # the request is refused before the signature is checked
        return unsigned | {"signature": signature}


class Person(Applicant):
    """An entity that has joined, and sends its requests by hand."""

    def __init__(self, registry, name):
        super().__init__()
        self.answer = registry.client.post("/v1/entities", json=self.enrolment(name))
        enrolled = self.answer.json()
        self.id = enrolled["member"]["id"]
        self.headers = {"Authorization": f"Bearer {enrolled['token']}"}


@pytest.fixture(scope="session")
def published_body(vault_service):
    """Return the draft of a person, as JSON, whose weights are in the vault."""

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
    """Return the entity of this name, enrolled once."""
    people = {}

    def enrol(name):
        if name not in people:
            people[name] = Person(registry_service, name)
        return people[name]

    return enrol


@pytest.fixture
def start(process, tmp_path):
    """Start a service that only this test uses; it is stopped at the end."""
    started = []

    def run(*arguments, **options):
        started.append(Service(tmp_path, *arguments, **options))
        return started[-1]

    yield run
    for service in started:
        service.close()
