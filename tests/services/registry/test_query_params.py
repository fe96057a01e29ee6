"""Questions as an address asks them."""

import dataclasses

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from kuber.domain.digest import Digest
from kuber.domain.query import Query
from kuber.domain.verification import Standing
from kuber.services.http.application import application
from kuber.services.http.metrics import Metrics
from kuber.services.registry.query_params import Question, documented

SET = Digest.of(b"set")


@pytest.fixture(scope="module")
def asked():
    """What the application makes of a query string: the question, or its refusal."""
    app: FastAPI = application("registry", description="", metrics=Metrics("registry"))
    questions: list[Query] = []

    @app.get("/asked", openapi_extra=documented())
    async def route(question: Question) -> None:
        questions.append(question)

    client = TestClient(app)

    def ask(query=""):
        questions.clear()
        answer = client.get(f"/asked?{query}")
        return questions[0] if answer.status_code == 200 else answer

    ask.document = client.get("/openapi.json").json()
    return ask


def test_without_parameters_it_is_the_usual_question(asked):
    assert asked() == Query()


def test_every_part_of_a_question_arrives(asked):
    question = asked(
        f"task=a%26b&test_set={SET}&min_accuracy=0.25&exclude_entity=e&initial=false&standing=verified&pending=true"
        f"&origin={SET}&latest=1&classes=3&classes=1&order=classes&limit=7&cursor=c"
    )
    assert question == Query(
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
    assert all(getattr(question, one.name) != getattr(Query(), one.name) for one in dataclasses.fields(Query))


def test_what_it_does_not_know_is_of_no_account(asked):
    assert asked("colour=red&limit=3") == Query(limit=3)


def test_of_what_is_there_twice_the_last_counts(asked):
    assert asked("limit=3&limit=4") == Query(limit=4)


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("limit=0", 422, "The field query.limit is refused: input should be greater than or equal to 1."),
        (
            "min_accuracy=inf",
            422,
            "The field query.min_accuracy is refused: input should be less than or equal to 1.",
        ),
        ("order=classes&classes=0&classes=x", 422, "The field query.classes.1 is refused: input should be a valid"),
        ("classes=1", 400, "This question cannot be asked: the order by classes needs classes"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(asked, query, status, sentence):
    answer = asked(query)
    assert (answer.status_code, answer.json()["code"]) == (status, "request-rejected")
    assert answer.json()["detail"].startswith(sentence)


def test_the_document_tells_of_every_part(asked):
    told = {one["name"]: one for one in asked.document["paths"]["/asked"]["get"]["parameters"]}
    assert told.keys() == {field.name for field in dataclasses.fields(Query)}
    assert all(one["in"] == "query" and one["description"] and not one["required"] for one in told.values())
    assert told["limit"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "default": 100,
        "title": "Limit",
    }
