"""Lines of log that repeat are counted."""

import io
import json
import logging

import pytest

from kuber.services.http.json_log import BURST, PERIOD, RepeatedLines


@pytest.fixture
def logged():
    """A logger, its filter, a clock of the test, and the messages that it has written."""
    now = [0.0]
    repeated = RepeatedLines(lambda: now[0])
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(repeated)
    loggers = [logging.getLogger(name) for name in ("kuber.sample", "kuber.services.http.json_log")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield loggers[0], repeated, now, lambda: stream.getvalue().splitlines()
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def test_a_line_that_repeats_is_counted(logged):
    logger, repeated, now, lines = logged
    for number in range(BURST + 512):
        logger.warning("no connection %d", number)
    logger.warning("another")
    assert len(lines()) == BURST + 1
    repeated.report()
    assert len(lines()) == BURST + 1
    now[0] = PERIOD
    repeated.report()
    assert lines()[-1] == "no connection %d ... repeated 512 times"
    logger.warning("no connection %d", 1)
    assert lines()[-1] == "no connection 1"


def test_requests_that_succeed_are_all_written_and_refused_ones_counted(logged):
    logger, repeated, now, lines = logged
    for status in (200, 401):
        for _ in range(BURST + 5):
            logger.info("request", extra={"fields": {"status": status}})
    assert len(lines()) == 2 * BURST + 5
    now[0] = PERIOD
    repeated.report()
    assert lines()[-1] == "request ... repeated 5 times"


def test_kinds_of_lines_are_bounded(logged):
    logger, repeated, _, _ = logged
    for number in range(2000):
        logger.warning(f"line {number}")
    assert len(repeated._counts) <= 1001
    assert json.dumps(len(repeated._counts))
