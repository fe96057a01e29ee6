"""Errors as HTTP problem details (RFC 9457), and back."""

from http import HTTPStatus
from typing import Annotated

from pydantic import Field

from kuber.errors import KUberError, RequestRejectedError, ServiceError, ServiceUnavailableError, error_class
from kuber.wire.base import Escaped, Message


class ProblemBody(Message):
    """Problem details (RFC 9457) with the code of a KUber error."""

    type: str = "about:blank"
    title: Escaped
    status: Annotated[int, Field(strict=True, ge=100, le=599)]
    detail: Escaped
    code: Escaped


def problem_from(error: KUberError, status: int) -> ProblemBody:
    """Return the error as problem details for this HTTP status."""
    return ProblemBody(title=HTTPStatus(status).phrase, status=status, detail=error.message, code=error.code)


def error_from(problem: ProblemBody) -> KUberError:
    """Return the error of a service; for an unknown, newer code the nearest class by HTTP status."""
    known = error_class(problem.code)
    if known is not None:
        return known(problem.detail)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return ServiceUnavailableError(problem.detail)
    return (RequestRejectedError if 400 <= problem.status < 500 else ServiceError)(problem.detail)
