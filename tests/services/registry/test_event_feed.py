"""The event feed: nothing is missed, and many waiters cost no more polls than one."""

import asyncio
import threading
import time
from datetime import UTC, datetime

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.domain.auth import PUBLISH, AuditEntry
from kuber.errors import RequestRejectedError, ServiceUnavailableError
from kuber.services.registry.event_feed import EventFeed
from tests.fixtures.coroutines import run_coroutine
from tests.fixtures.waiting import LIMIT

POLL = 0.05  # seconds, in place of the product's


@pytest.fixture(autouse=True)
def poll_often(monkeypatch):
    monkeypatch.setattr("kuber.services.registry.event_feed.POLL_SECONDS", POLL)


class FakeDatabase:
    """Events in a list, with a count of reads."""

    def __init__(self):
        self.entries = []
        self.reads = 0
        self.unreachable = False

    def add(self, act=PUBLISH, task="digits"):
        number = len(self.entries) + 1
        entry = AuditEntry(time=datetime.now(UTC), actor="a", act=act, subject=f"{number}", detail={"task": task})
        self.entries.append((number, entry))

    async def read(self, after, limit):
        self.reads += 1
        if self.unreachable:
            raise ServiceUnavailableError("The database is unreachable.")
        return [(number, entry) for number, entry in self.entries if number > after and entry.act != "invite"][:limit]

    async def last(self):
        return len(self.entries)

    def feed(self):
        return EventFeed(self.read, self.last)


async def take(feed, number, count):
    found = []
    async for notice in feed.follow(number, limit=7):
        found.append(notice.number)
        if len(found) == count:
            return found


def test_private_events_do_not_make_followers_spin():
    async def act():
        database = FakeDatabase()
        for _ in range(3):
            database.add("invite")
        feed = database.feed()
        waiting = asyncio.create_task(feed.wait(3, 20))  # polling begins with the last number
        await asyncio.sleep(0)
        early = asyncio.create_task(take(feed, 0, 1))  # and this follower is behind it
        await asyncio.sleep(2.4 * POLL)
        reads = database.reads
        assert reads < 10
        assert await feed.after(0, limit=7) == ([], 3)
        database.add()
        assert await asyncio.wait_for(early, LIMIT) == [4]
        await waiting

    run_coroutine(act())


def test_followers_and_waiters_end_when_the_service_stops():
    async def act():
        database = FakeDatabase()
        database.add()
        feed = database.feed()
        received = []

        async def follow():
            async for notice in feed.follow(0, limit=7):
                received.append(notice.number)

        following, waiting = asyncio.create_task(follow()), asyncio.create_task(feed.wait(1))
        while not received:
            await asyncio.sleep(0.01)
        assert not following.done()
        assert not waiting.done()
        feed.stop()
        await asyncio.wait_for(asyncio.gather(following, waiting, feed.wait(1)), LIMIT)
        assert received == [1]

    run_coroutine(act())


def test_many_waiters_cost_one_poll_at_a_time():
    async def act():
        database = FakeDatabase()
        for _ in range(20):
            database.add()
        feed = database.feed()
        followers = [asyncio.create_task(take(feed, number, 25 - number)) for number in [20] * 300 + [0, 5, 17]]
        await asyncio.sleep(0.4 * POLL)
        before = database.reads
        for _ in range(5):
            database.add()
            await asyncio.sleep(1.2 * POLL)
        found = await asyncio.wait_for(asyncio.gather(*followers), LIMIT)
        assert found[0] == [21, 22, 23, 24, 25]
        assert found[-3:] == [list(range(1, 26)), list(range(6, 26)), list(range(18, 26))]
        # Some reads in half a second of waiting, not some for each of three hundred waiters.
        assert database.reads - before < 30

    run_coroutine(act())


def test_a_follower_behind_the_recent_events_misses_none(monkeypatch):
    monkeypatch.setattr("kuber.services.registry.event_feed.RECENT", 10)

    async def act():
        database = FakeDatabase()
        feed = database.feed()
        quick = asyncio.create_task(take(feed, 0, 100))
        await asyncio.sleep(0)
        slow = feed.follow(0, limit=7)
        database.add()
        seen = [(await anext(slow)).number]
        for _ in range(99):
            database.add()
        assert await asyncio.wait_for(quick, LIMIT) == list(range(1, 101))
        while len(seen) < 100:
            seen.append((await asyncio.wait_for(anext(slow), LIMIT)).number)
        assert seen == list(range(1, 101))

    run_coroutine(act())


def test_polling_resumes_after_an_unreachable_database_and_ends_without_waiters():
    async def act():
        database = FakeDatabase()
        feed = database.feed()
        follower = asyncio.create_task(take(feed, 0, 1))
        await asyncio.sleep(0.2 * POLL)
        database.unreachable = True
        database.add()
        await asyncio.sleep(1.6 * POLL)
        assert not follower.done()
        database.unreachable = False
        assert await asyncio.wait_for(follower, LIMIT) == [1]
        await asyncio.sleep(4.8 * POLL)
        reads = database.reads
        await asyncio.sleep(2.4 * POLL)
        assert database.reads == reads
        database.add()
        assert await asyncio.wait_for(take(feed, 1, 1), LIMIT) == [2]  # a later follower receives it too

    run_coroutine(act())


def test_a_number_beyond_the_last_event_does_not_block_others():
    """Such as that of a client whose hub was restored from an older backup, or of an attacker."""

    async def act():
        database = FakeDatabase()
        for _ in range(5):
            database.add()
        feed = database.feed()
        ahead = asyncio.create_task(feed.wait(10**17, 20))
        await asyncio.sleep(0.2 * POLL)
        assert await feed.clamp(10**17) == await feed.clamp(None) == 5
        follower = asyncio.create_task(take(feed, 5, 1))
        before = database.reads
        await asyncio.sleep(2.4 * POLL)
        assert database.reads - before < 10  # it waits and does not spin
        database.add()
        assert await asyncio.wait_for(follower, LIMIT) == [6]
        ahead.cancel()

    run_coroutine(act())


def test_events_newer_than_the_last_poll_are_not_sent_twice():
    """A client may know of an event from an answer of the database, before the next poll finds it."""

    async def act():
        database = FakeDatabase()
        feed = database.feed()
        waiting = asyncio.create_task(feed.wait(0, 20))
        await asyncio.sleep(0)
        database.add()
        follower = asyncio.create_task(take(feed, 1, 1))
        await waiting
        database.add()
        assert await asyncio.wait_for(follower, LIMIT) == [2]

    run_coroutine(act())


def test_waiters_survive_a_poll_that_raises():
    async def act():
        database = FakeDatabase()
        feed = database.feed()
        follower = asyncio.create_task(take(feed, 0, 1))
        await asyncio.sleep(0.2 * POLL)
        read, database.entries = database.entries, None  # a foreign error
        await asyncio.sleep(1.6 * POLL)
        database.entries = read
        database.add()
        with pytest.raises(TypeError):  # raised to the next reader
            await asyncio.wait_for(follower, LIMIT)
        assert await asyncio.wait_for(take(feed, 0, 1), LIMIT) == [1]

    run_coroutine(act())


@pytest.fixture
def watcher(registry_service, enrolled):
    credentials = Credentials(token=enrolled("watcher").headers["Authorization"].split()[1])
    with HttpRegistry(str(registry_service.client.base_url), credentials=credentials) as registry:
        yield registry


def publish(registry_service, enrolled, published_body, name, task):
    person = enrolled(name)
    body = published_body(person)
    body["task"]["name"] = task
    headers = person.headers | {"Idempotency-Key": "a"}
    answer = registry_service.client.post("/v1/knowledge", json=person.signed(body, "a"), headers=headers)
    answer.raise_for_status()
    return answer.json()["id"]


def test_a_client_receives_publications_on_its_task(registry_service, enrolled, published_body, watcher):
    watch = watcher.watch
    start = watch()  # at once: without a cursor there is nothing to wait for
    assert start.items == ()
    pages = []
    thread = threading.Thread(target=lambda: pages.append(watch(after=start.cursor, task="mine", seconds=20)))
    thread.start()
    publish(registry_service, enrolled, published_body, "other", "theirs")
    id = publish(registry_service, enrolled, published_body, "one", "mine")
    thread.join(LIMIT)
    (page,) = pages
    assert [entry.subject for entry in page.items] == [id]
    assert page.items[0].detail["task"] == "mine"
    again = watch(after=page.cursor, task="mine", seconds=0)
    assert again.items == ()
    assert len(watch(after=start.cursor, seconds=0).items) == 2


def test_waiting_without_publications_ends_in_time(watcher):
    start = watcher.watch(seconds=0)
    began = time.monotonic()
    page = watcher.watch(after=start.cursor, task="nobody publishes on this", seconds=1)
    assert page.items == ()
    assert int(page.cursor) >= int(start.cursor)
    assert time.monotonic() - began >= 1


def test_a_wait_longer_than_proxies_allow_is_refused(watcher):
    with pytest.raises(RequestRejectedError, match="seconds is refused"):
        watcher.watch(seconds=100)
