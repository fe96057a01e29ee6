"""Both services against their own OpenAPI documents: sequences of requests, made up from them, break nothing."""

import subprocess
import sys

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


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
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{getattr(unlimited_hub, service)}/openapi.json"]
    command += [
        "--header",
        f"Authorization: Bearer {tokens[who]}",
        "--checks",
        CHECKS,
        "--max-examples",
        str(examples),
    ]
    # The stream of events does not end, and a token that was ended by chance would end the test's own.
    command += ["--exclude-path", "/v1/events", "--seed", "1", "--generation-database", "none", "--no-shrink"]
    # In a folder of its own: it leaves a cache where it is.
    told = subprocess.run([*command, "--no-color"], cwd=tmp_path, capture_output=True, text=True, timeout=6000)
    assert told.returncode == 0, told.stdout[-5000:] + told.stderr[-2000:]
    assert "Stateful" in told.stdout
