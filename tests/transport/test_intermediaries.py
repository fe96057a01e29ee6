import time
from email.utils import formatdate

import httpx
import pytest

from kuber.transport.intermediaries import intermediary_error, retry_after


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        (429, "30", 30),
        (429, " 7 ", 7),
        (503, "1", 1),
        (503, "3600", 2),
        (503, "", 0),
        (429, "soon", 0),
        (429, "-5", 0),
    ],
)
def test_reads_the_pause_that_an_answer_asks_for(status, asked, seconds):
    assert retry_after(httpx.Response(status, headers={"Retry-After": asked})) == seconds


@pytest.mark.parametrize("offset", [-60, 60])
def test_reads_the_time_until_which_an_answer_asks_to_wait(offset):
    response = httpx.Response(429, headers={"Retry-After": formatdate(time.time() + offset, usegmt=True)})
    assert retry_after(response) == pytest.approx(max(0, offset), abs=2)


@pytest.mark.parametrize(("length", "size"), [("2100000", "2.1 MB"), ("1500", "1.5 kB"), ("12", "12 bytes")])
def test_a_refused_body_is_named_by_its_size(length, size):
    request = httpx.Request("POST", "http://hub/", headers={"Content-Length": length})
    error = intermediary_error(httpx.Response(413, request=request), "registry", "http://hub")
    assert error.too_large
    assert f"takes no body of {size} (status 413)" in error.message
