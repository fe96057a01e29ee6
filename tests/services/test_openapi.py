"""Both services against their own OpenAPI documents: sequences of requests, made up from them, break nothing."""

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from tests.fixtures.commands import finished
from tests.fixtures.hub import running_hub

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def direct_hub(s3, tmp_path_factory):
    """A hub whose vault is in a bucket, and offers the way beside it."""
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
    ("who", "examples"),
    [
        ("entity", 3),
        *[pytest.param(who, 300, marks=pytest.mark.soak) for who in ("entity", "operator", "service", "nobody")],
    ],
)
@pytest.mark.parametrize("service", ["registry", "vault"])
def test_made_up_requests_get_the_answers_that_the_document_tells_of(
    unlimited_hub, tokens, tmp_path, service, who, examples
):
    make_up(getattr(unlimited_hub, service), tokens[who], examples, tmp_path)


@pytest.mark.soak
def test_made_up_requests_get_such_answers_beside_the_vault_too(direct_hub, tmp_path):
    make_up(direct_hub.vault, direct_hub.secret, 100, tmp_path, "--header", "KUber-Direct: yes")


def make_up(url, token, examples, tmp_path, *more):
    command = ["run", f"{url}/openapi.json", *more]
    command += [
        "--header",
        f"Authorization: Bearer {token}",
        "--checks",
        CHECKS,
        "--max-examples",
        str(examples),
    ]
    # The stream of events does not end, and a token that was ended by chance would end the test's own.
    # Whoever waits for news waits for longer than it waits for an answer.
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
    # In a folder of its own: it leaves a cache where it is.
    program = ("-m", "schemathesis.cli")
    told = finished(
        *command, "--no-color", program=program, preload=("schemathesis.cli",), folder=tmp_path, limit=6000
    )
    assert told.returncode == 0, told.stdout[-5000:] + told.stderr[-2000:]
    assert "Stateful" in told.stdout
