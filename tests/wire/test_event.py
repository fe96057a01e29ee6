from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kuber.domain.event import KINDS, Event
from kuber.wire.event import decode_event, encode_event

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
events = st.builds(
    Event,
    time=st.datetimes(timezones=st.just(UTC)),
    entity=st.none() | st.text(),
    seq=st.integers(0, 10**9),
    round=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    detail=st.dictionaries(st.text(), json_values, max_size=3),
)
EVENT = Event(
    time=datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    entity="0",
    seq=3,
    round=1,
    kind="published",
    detail={"knowledge": "id-1", "bytes": 7, "digest": None},
)
LINE = (
    '{"time":"2026-01-02T03:04:05Z","entity":"0","seq":3,"round":1,"kind":"published",'
    '"detail":{"knowledge":"id-1","bytes":7,"digest":null}}'
)
GARBAGE = ["", "{", "null", "[]", "{}", LINE[:-1], LINE.replace("published", "vanished"), LINE.replace("Z", "")]
GARBAGE += [LINE.replace('"seq":3', '"seq":-1'), LINE.replace('"seq":3', '"seq":"3"'), LINE.replace('"0"', "0")]


def test_an_event_is_written_as_documented():
    assert encode_event(EVENT) == LINE
    assert decode_event(LINE) == EVENT


@given(event=events)
def test_round_trip(event):
    line = encode_event(event)
    assert line.splitlines() == [line]
    assert decode_event(line) == event


def test_unknown_fields_of_a_later_version_are_ignored():
    assert decode_event(LINE[:-1] + ',"host":"there"}') == EVENT


@pytest.mark.parametrize("line", GARBAGE)
def test_garbage_is_a_value_error_of_one_line(line):
    with pytest.raises(ValueError, match="is not a KUber event") as caught:
        decode_event(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_refuses_details_that_are_not_json(value):
    event = Event(time=EVENT.time, entity=None, seq=0, round=0, kind="trained", detail={"loss": value})
    with pytest.raises(ValueError):
        encode_event(event)


def test_numbers_of_numpy_and_torch_are_written_as_such():
    detail = {"a": np.float32(0.5), "b": np.int64(2), "c": np.arange(2), "d": torch.tensor(3), "e": np.bool_(True)}
    event = replace(EVENT, detail=detail)
    assert decode_event(encode_event(event)).detail == {"a": 0.5, "b": 2, "c": [0, 1], "d": 3, "e": True}
