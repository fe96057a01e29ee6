"""Query parameters of a discover request: the fields of Query, validated by one model.

FastAPI would resolve each parameter at each request, which took a tenth of the time of a discover request.
"""

from dataclasses import fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from kuber.domain.digest import Digest
from kuber.domain.query import MAX_LIMIT, Query
from kuber.errors import RequestRejectedError
from kuber.wire.base import DigestField, only_printable
from kuber.wire.registry import MAX_CLASSES

_TYPES: dict[Any, Any] = {
    Digest: DigestField,
    str: Annotated[str, Field(max_length=200), AfterValidator(only_printable)],
    float: Annotated[float, Field(ge=0, le=1)],
    int: Annotated[int, Field(ge=1, le=MAX_LIMIT)],
    tuple[int, ...]: Annotated[tuple[Annotated[int, Field(ge=0, lt=MAX_CLASSES)], ...], Field(max_length=MAX_LIMIT)],
}


def _query_parameters() -> type[BaseModel]:
    """Make the model of the parameters; it ignores others."""
    hints = get_type_hints(Query, include_extras=True)
    parameters: dict[str, Any] = {}
    for field in fields(Query):
        hint, description = get_args(hints[field.name])
        if get_origin(hint) is UnionType:
            hint = Union[tuple(_TYPES.get(part, part) for part in get_args(hint))]  # noqa: UP007 - computed
        typed = _TYPES.get(hint, hint)
        parameters[field.name] = Annotated[typed, Field(description=description)], field.default
    return create_model("QueryParameters", __config__=ConfigDict(frozen=True, extra="ignore"), **parameters)


QueryParameters = _query_parameters()


async def _read_query(request: Request) -> Query:
    values: dict[str, Any] = dict(request.query_params)
    if "classes" in values:
        values["classes"] = request.query_params.getlist("classes")
    try:
        parameters = dict(QueryParameters.model_validate(values))
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError([detail | {"loc": ("query", *detail["loc"])} for detail in found]) from None
    try:
        return Query(**parameters)
    except ValueError as error:
        raise RequestRejectedError(f"The query is not valid: {error}.") from None


DiscoverQuery = Annotated[Query, Depends(_read_query)]


def openapi_parameters() -> dict[str, Any]:
    """Return the parameters for an OpenAPI operation, which do not follow from a custom dependency."""
    properties = QueryParameters.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    parameters = []
    for name, schema in properties.items():
        description = schema.pop("description")
        parameters.append(
            {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
        )
    return {"parameters": parameters}
