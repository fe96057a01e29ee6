import pytest

from kuber.errors import (
    KnowledgeNotFoundError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    all_errors,
)
from kuber.wire.problem import ProblemBody, error_from, problem_from


@pytest.mark.parametrize("error", all_errors())
def test_every_error_survives_a_round_trip(error):
    problem = problem_from(error("Nothing works; try again."), 500)
    back = error_from(ProblemBody.read(problem.model_dump_json()))
    assert type(back) is error
    assert back.message == "Nothing works; try again."


def test_a_problem_is_that_of_rfc_9457():
    problem = problem_from(KnowledgeNotFoundError("The vault has no such blob."), 404)
    assert problem.model_dump() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "The vault has no such blob.",
        "code": "knowledge-not-found",
    }


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RequestRejectedError), (418, RequestRejectedError), (503, ServiceUnavailableError), (500, ServiceError)],
)
def test_an_unknown_code_is_classified_by_its_status(status, error):
    problem = ProblemBody(title="New", status=status, detail="Something new.", code="new")
    assert type(error_from(problem)) is error
