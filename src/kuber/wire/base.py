"""Base of all messages: strict field types, reading, and canonical JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from kuber.domain.digest import Digest
from kuber.domain.printable_text import printable
from kuber.errors import RequestRejectedError

V = TypeVar("V")

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def only_printable(text: str) -> str:
    """Return a text that has only printable characters. ValueError for others."""
    if not text.isprintable():
        raise ValueError("only printable characters are allowed")
    return text


def _escaped(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _time(value: Any) -> Any:
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        raise ValueError("write a time as in RFC 3339, like 2026-01-31T12:00:00Z")
    return value


def _day(value: Any) -> Any:
    plain_date = isinstance(value, date) and not isinstance(value, datetime)
    if not plain_date and not (isinstance(value, str) and _DAY.fullmatch(value)):
        raise ValueError("write a day as in RFC 3339, like 2026-01-31")
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
_ParsedDigest = Annotated[
    DigestText,
    AfterValidator(Digest.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(TypeAdapter(DigestText).json_schema()),
]
DigestField = Annotated[Digest, GetPydanticSchema(lambda _source, handler: handler.generate_schema(_ParsedDigest))]
Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(only_printable)]
Sentence = Annotated[str, Field(min_length=1), AfterValidator(only_printable)]
# Written from what others sent, such as an error: shown as it is, so what is not printable becomes an escape.
Escaped = Annotated[str, BeforeValidator(_escaped)]
HexText = Annotated[str, Field(pattern=r"^[0-9a-f]{64,128}$", description="Lower-case hex digits.")]
Day = Annotated[date, BeforeValidator(_day)]
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
    """A value of a domain dataclass as JSON; its fields are some or all of the dataclass's.

    Values that the domain refuses raise ValidationError.
    """

    _domain: ClassVar[type]
    _names: ClassVar[tuple[str, ...]]  # of the fields that both have
    _value: V | None = PrivateAttr(None)  # made when the message is validated

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for base in cls.__mro__:
            generic = getattr(base, "__pydantic_generic_metadata__", None)
            if generic is not None and generic["origin"] is Body and isinstance(generic["args"][0], type):
                (cls._domain,) = generic["args"]
                cls._names = tuple(field.name for field in fields(cls._domain) if field.name in cls.model_fields)

    @classmethod
    def of(cls, value: V) -> Self:
        """Return the message of this value. RequestRejectedError when it exceeds the limits of messages."""
        try:
            return cls.model_validate(value, from_attributes=True)
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None

    def value(self) -> V:
        """Return the domain value."""
        if self._value is None:
            self._value = self._domain(**{name: _domain_value(getattr(self, name)) for name in self._names})
        return self._value

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the message, without the domain value of this one."""
        copy = super().model_copy(update=update, deep=deep)
        copy._value = None
        return copy

    @model_validator(mode="after")
    def _valid(self) -> Self:
        self.value()
        return self


def _domain_value(value: Any) -> Any:
    if isinstance(value, Body):
        return value.value()
    if isinstance(value, dict):
        return {key: _domain_value(item) for key, item in value.items()}
    if isinstance(value, tuple) and value and isinstance(value[0], Body):
        return tuple(item.value() for item in value)
    return value


def canonical(body: BaseModel) -> bytes:
    """Return the canonical JSON of this message: sorted keys, no spaces, no null fields, UTF-8.

    Without null fields a message keeps its bytes when a later version adds an optional field.
    """
    return canonical_json(body.model_dump(mode="json", exclude_none=True))


def canonical_json(values: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a message whose values, without null fields, are these."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sentence(error: ValidationError) -> str:
    """Return one sentence that names the first invalid field and the reason."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    reason = f"{reason[:1].lower()}{reason[1:]}".rstrip(".")
    place = ".".join(str(part)[:100] for part in first["loc"])
    return f"The field {place} is refused: {reason}." if place else f"The message is refused: {reason}."
