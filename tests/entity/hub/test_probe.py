"""A hub that does not answer is tried in the background, by threads that end with it or with its owner."""

import queue
import threading

import pytest

from kuber.entity.hub.probe import LONGEST_PAUSE, HubProbe
from kuber.errors import ServiceUnavailableError

from ...fixtures.waiting import wait_until

NO_ANSWER = ServiceUnavailableError("No answer.")


class Tried:
    """A service whose every check waits for its outcome."""

    def __init__(self):
        self.outcomes = queue.Queue()
        self.pauses = []
        self.probe = HubProbe({"registry": self.check}, pause=self.pause)

    def check(self):
        error = self.outcomes.get()
        if error is not None:
            raise error

    def pause(self, seconds):
        self.pauses.append(seconds)
        return False


@pytest.fixture
def tried():
    service = Tried()
    yield service
    service.probe.close()
    service.outcomes.put(NO_ANSWER)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "kuber-registry-probe"]


def test_a_service_is_tried_until_it_answers(tried):
    tried.probe.watch("registry")
    tried.probe.watch("registry")
    (thread,) = threads()
    assert thread.daemon  # it does not keep the process alive
    for error in (NO_ANSWER, RuntimeError("anything")):
        tried.outcomes.put(error)
        assert not tried.probe.answers("registry")
    tried.outcomes.put(None)
    wait_until(lambda: tried.probe.answers("registry"), "an answer")
    thread.join()
    assert tried.pauses == [1, 2, 4]


def test_a_service_that_answers_the_probe_alone_is_tried_less_often(tried):
    for _ in range(9):
        tried.outcomes.put(None)
        tried.probe.watch("registry")
        wait_until(lambda: tried.probe.answers("registry") and not threads(), "an answer")
    assert tried.pauses[-3:] == [LONGEST_PAUSE] * 3
    tried.probe.succeeded("registry")
    tried.outcomes.put(None)
    tried.probe.watch("registry")
    wait_until(lambda: not threads(), "an answer")
    assert tried.pauses[-1] == 1


def test_a_closed_probe_tries_nothing(tried):
    tried.probe.watch("registry")
    (thread,) = threads()
    tried.probe.close()
    tried.outcomes.put(NO_ANSWER)
    thread.join()
    tried.probe.watch("registry")
    assert threads() == []


def test_services_without_a_check_are_not_covered(tried):
    assert tried.probe.covers("registry")
    assert not tried.probe.covers("vault")
