"""Base of all messages: strict field types, reading, and canonical JSON."""

import json
import re
from abc import abstractmethod
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from kuber.domain.digest import Digest
from kuber.errors import RequestRejectedError

V = TypeVar("V")

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("only printable characters are allowed")
    return text


def _time(value: Any) -> Any:
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        raise ValueError("write a time as in RFC 3339, like 2026-01-31T12:00:00Z")
    return value


def _utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is not one of the years 1 to 9999") from None


DigestText = Annotated[
    str,
    Field(pattern=r"^sha256:[0-9a-f]{64}$", description="sha256: and 64 lower-case hex digits."),
    BeforeValidator(lambda value: str(value) if isinstance(value, Digest) else value),
]
Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Sentence = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
HexText = Annotated[str, Field(pattern=r"^[0-9a-f]{64,128}$", description="Lower-case hex digits.")]
Time = Annotated[AwareDatetime, BeforeValidator(_time), AfterValidator(_utc)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Positive = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
RoundNumber = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class Message(BaseModel):
    """JSON object with known fields. Unknown fields are refused, except by `read`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, data: bytes | str) -> Self:
        """Return the message in this JSON, without unknown fields. ValidationError when it is not valid."""
        return cls.model_validate_json(data, extra="ignore")


class Body(Message, Generic[V]):
    """A domain value as JSON. Values that the domain refuses raise ValidationError."""

    @classmethod
    def of(cls, value: V) -> Self:
        """Return the message of this value. RequestRejectedError when it exceeds the limits of messages."""
        try:
            return cls.model_validate(value, from_attributes=True)
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None

    @abstractmethod
    def value(self) -> V:
        """Return the domain value."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self.value()
        return self


def canonical(body: BaseModel) -> bytes:
    """Return the canonical JSON of this message: sorted keys, no spaces, no null fields, UTF-8.

    Without null fields a message keeps its bytes when a later version adds an optional field.
    """
    fields = body.model_dump(mode="json", exclude_none=True)
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sentence(error: ValidationError) -> str:
    """Return one sentence that names the first invalid field and the reason."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    reason = f"{reason[:1].lower()}{reason[1:]}".rstrip(".")
    place = ".".join(str(part)[:100] for part in first["loc"])
    return f"The field {place} is refused: {reason}." if place else f"The message is refused: {reason}."
