"""Both services tested with sequences of requests generated from their OpenAPI documents."""

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from tests.fixtures.commands import finished
from tests.fixtures.hub import running_hub

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def direct_hub(s3, tmp_path_factory):
    """Hub whose vault is in a bucket and offers direct transfers."""
    free = ("--requests-per-minute", "0")
    keeping = (*free, "--store", f"s3://{s3.bucket()}/hub", "--direct")
    with running_hub(tmp_path_factory.mktemp("direct"), "--open-enrolment", *free, keeping=keeping) as hub:
        yield hub


@pytest.fixture(scope="module")
def tokens(unlimited_hub):
    me = Credentials()
    with HttpRegistry(unlimited_hub.registry, credentials=me) as registry:
        registry.register("somebody")
    return {
        "entity": me.token(),
        "operator": unlimited_hub.operator,
        "service": unlimited_hub.secret,
        "nobody": "nobodys-token",
    }


@pytest.mark.parametrize(
    ("role", "examples"),
    [
        ("entity", 3),
        *[pytest.param(role, 300, marks=pytest.mark.soak) for role in ("entity", "operator", "service", "nobody")],
    ],
)
@pytest.mark.parametrize("service", ["registry", "vault"])
def test_generated_requests_get_documented_responses(unlimited_hub, tokens, tmp_path, service, role, examples):
    generate_requests(getattr(unlimited_hub, service), tokens[role], examples, tmp_path)


@pytest.mark.soak
def test_generated_requests_get_documented_responses_from_a_vault_with_direct_transfers(direct_hub, tmp_path):
    generate_requests(direct_hub.vault, direct_hub.secret, 100, tmp_path, "--header", "KUber-Direct: yes")


def generate_requests(url, token, examples, tmp_path, *more):
    command = ["run", f"{url}/openapi.json", *more]
    command += [
        "--header",
        f"Authorization: Bearer {token}",
        "--checks",
        CHECKS,
        "--max-examples",
        str(examples),
    ]
    # The event stream does not end, and a long poll lasts longer than the client's timeout.
    command += [
        "--exclude-path",
        "/v1/events",
        "--exclude-path",
        "/v1/news",
        "--seed",
        "1",
        "--generation-database",
        "none",
        "--no-shrink",
    ]
    # schemathesis leaves a cache in its working directory.
    program = ("-m", "schemathesis.cli")
    done = finished(
        *command, "--no-color", program=program, preload=("schemathesis.cli",), folder=tmp_path, limit=6000
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "Stateful" in done.stdout
