"""The query parameters of a discover request."""

import dataclasses

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from kuber.client.registry import query_parameters
from kuber.domain.digest import Digest
from kuber.domain.query import Query
from kuber.domain.verification import Standing
from kuber.services.http.application import application
from kuber.services.http.metrics import Metrics
from kuber.services.registry.query_params import DiscoverQuery, openapi_parameters

SET = Digest.of(b"set")


@pytest.fixture(scope="module")
def read():
    """Return what the application makes of a query string: a query, or the response that refuses it."""
    app: FastAPI = application("registry", description="", metrics=Metrics("registry"))
    queries: list[Query] = []

    @app.get("/read", openapi_extra=openapi_parameters())
    async def route(query: DiscoverQuery) -> None:
        queries.append(query)

    client = TestClient(app)

    def act(parameters=""):
        queries.clear()
        response = client.get(f"/read?{parameters}")
        return queries[0] if response.status_code == 200 else response

    act.document = client.get("/openapi.json").json()
    return act


def test_without_parameters_it_is_the_default_query(read):
    assert read() == Query()


def test_every_parameter_arrives(read):
    query = read(
        f"task=a%26b&test_set={SET}&min_accuracy=0.25&exclude_entity=e&initial=false&standing=verified&pending=true"
        f"&origin={SET}&latest=1&classes=3&classes=1&order=classes&limit=7&cursor=c"
    )
    assert query == Query(
        task="a&b",
        test_set=SET,
        min_accuracy=0.25,
        exclude_entity="e",
        initial=False,
        standing=Standing.VERIFIED,
        pending=True,
        origin=SET,
        latest=True,
        classes=(3, 1),
        order="classes",
        limit=7,
        cursor="c",
    )
    assert all(getattr(query, field.name) != field.default for field in dataclasses.fields(Query))


digests = st.binary(max_size=1).map(Digest.of)
names = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=200)
classes = st.lists(st.integers(0, 99_999), min_size=1, max_size=5, unique=True).map(tuple)
filters = {
    "task": names,
    "test_set": digests,
    "min_accuracy": st.floats(0, 1),
    "exclude_entity": names,
    "initial": st.booleans(),
    "origin": digests,
    "standing": st.sampled_from(Standing),
    "cursor": names,
}


@given(
    fields=st.fixed_dictionaries(
        {"pending": st.booleans(), "latest": st.booleans(), "limit": st.integers(1, 1000)},
        optional={name: st.none() | values for name, values in filters.items()},
    ),
    ranking=st.sampled_from(["accuracy", "newest", "oldest"]).map(lambda order: {"order": order})
    | classes.map(lambda classes: {"order": "classes", "classes": classes}),
)
def test_the_client_sends_what_the_service_reads(read, fields, ranking):
    query = Query(**fields, **ranking)
    assert read(httpx.QueryParams(query_parameters(query))) == query


def test_unknown_parameters_are_ignored(read):
    assert read("colour=red&limit=3") == Query(limit=3)


def test_of_a_repeated_parameter_the_last_counts(read):
    assert read("limit=3&limit=4") == Query(limit=4)


@pytest.mark.parametrize(
    ("parameters", "status", "sentence"),
    [
        ("limit=0", 422, "The field query.limit is refused: input should be greater than or equal to 1."),
        (
            "min_accuracy=inf",
            422,
            "The field query.min_accuracy is refused: input should be less than or equal to 1.",
        ),
        ("order=classes&classes=0&classes=x", 422, "The field query.classes.1 is refused: input should be a valid"),
        ("classes=1", 400, "The query is not valid: order 'classes' needs classes"),
    ],
)
def test_what_is_not_valid_is_refused_in_a_sentence(read, parameters, status, sentence):
    response = read(parameters)
    assert (response.status_code, response.json()["code"]) == (status, "request-rejected")
    assert response.json()["detail"].startswith(sentence)


def test_the_document_describes_every_parameter(read):
    described = {entry["name"]: entry for entry in read.document["paths"]["/read"]["get"]["parameters"]}
    assert described.keys() == {field.name for field in dataclasses.fields(Query)}
    assert all(
        entry["in"] == "query" and entry["description"] and not entry["required"] for entry in described.values()
    )
    assert described["limit"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "default": 100,
        "title": "Limit",
    }
    assert described["task"]["schema"]["anyOf"] == [{"type": "string", "maxLength": 200}, {"type": "null"}]
    assert described["test_set"]["schema"]["anyOf"][0]["pattern"] == "^sha256:[0-9a-f]{64}$"
    assert described["classes"]["schema"] == {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": 100_000},
        "maxItems": 1000,
        "default": [],
        "title": "Classes",
    }
