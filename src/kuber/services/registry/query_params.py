"""The question for knowledge that the parameters of an address tell, checked by one model.

FastAPI finds out at each request what each parameter is, which took a tenth of the time of a question.
"""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kuber.domain.digest import Digest
from kuber.domain.query import MAX_LIMIT, Order, Query
from kuber.domain.verification import Standing
from kuber.errors import RequestRejectedError
from kuber.services.registry.access_routes import Cursor, Limit
from kuber.wire import MAX_CLASSES, DigestText

Label = Annotated[int, Field(ge=0, lt=MAX_CLASSES)]


class QueryParameters(BaseModel):
    """What an address may ask; other parameters are of no account."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: Annotated[str | None, Field(max_length=200, description="Name of the task.")] = None
    test_set: Annotated[DigestText | None, Field(description="Digest of the common test set.")] = None
    min_accuracy: Annotated[float | None, Field(ge=0, le=1, description="Claimed, at least this.")] = None
    exclude_entity: Annotated[str | None, Field(max_length=200, description="Id of an entity.")] = None
    initial: Annotated[
        bool | None, Field(description="Only initial checkpoints; or, when false, only what was trained.")
    ] = None
    standing: Annotated[Standing | None, Field(description="Only what the hub found to be so.")] = None
    pending: Annotated[bool, Field(description="Only what the hub has not looked at.")] = False
    origin: Annotated[
        DigestText | None, Field(description="Digest of the initial checkpoint that it descends from.")
    ] = None
    latest: Annotated[bool, Field(description="Only the newest of each entity on each task.")] = False
    classes: Annotated[
        tuple[Label, ...],
        Field(max_length=MAX_LIMIT, description="Indices of labels; with order classes, and only then."),
    ] = ()
    order: Annotated[
        Order, Field(description="Best, newest or oldest first, or best mean recall on `classes` first.")
    ] = "accuracy"
    limit: Limit = 100
    cursor: Cursor = None

    def query(self) -> Query:
        """The question. RequestRejectedError when its parts do not go together."""
        told = {name: getattr(self, name) for name in type(self).model_fields}
        for name in ("test_set", "origin"):
            told[name] = told[name] and Digest.parse(told[name])
        try:
            return Query(**told)
        except ValueError as error:
            raise RequestRejectedError(f"This question cannot be asked: {error}.") from None


async def _question(request: Request) -> Query:
    told: dict[str, Any] = dict(request.query_params)
    if "classes" in told:
        told["classes"] = request.query_params.getlist("classes")
    try:
        return QueryParameters.model_validate(told).query()
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError([one | {"loc": ("query", *one["loc"])} for one in found]) from None


Question = Annotated[Query, Depends(_question)]


def documented() -> dict[str, Any]:
    """The parameters as an OpenAPI operation tells of them, which a dependency of its own does not."""
    fields = QueryParameters.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    told = []
    for name, schema in fields.items():
        description = schema.pop("description")
        told.append({"name": name, "in": "query", "required": False, "schema": schema, "description": description})
    return {"parameters": told}
