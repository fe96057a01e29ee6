"""News of publications: nothing is missed, and many who wait cost no more looks than one."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.domain.auth import PUBLISH, AuditEntry
from kuber.errors import RequestRejectedError, ServiceUnavailableError
from kuber.services.registry.event_feed import EventFeed


class Shelf:
    """Events in a list, whose readings are counted."""

    def __init__(self):
        self.entries = []
        self.looks = 0
        self.away = False

    def add(self, act=PUBLISH, task="digits"):
        number = len(self.entries) + 1
        entry = AuditEntry(time=datetime.now(UTC), actor="a", act=act, subject=f"{number}", detail={"task": task})
        self.entries.append((number, entry))

    async def read(self, after, limit):
        self.looks += 1
        if self.away:
            raise ServiceUnavailableError("The database is away.")
        return [one for one in self.entries if one[0] > after and one[1].act != "invite"][:limit]

    async def last(self):
        return len(self.entries)

    def news(self):
        return EventFeed(self.read, self.last)


def run(coroutine):
    """In a thread of its own: where a browser was tested before, this one has a loop that runs."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


async def take(news, number, count):
    found = []
    async for notice in news.follow(number, limit=7):
        found.append(notice.number)
        if len(found) == count:
            return found


def test_events_that_are_not_for_all_keep_nobody_turning():
    async def act():
        shelf = Shelf()
        for _ in range(3):
            shelf.add("invite")
        news = shelf.news()
        waiting = asyncio.create_task(news.wait(3, 20))  # the watch begins with the last number
        await asyncio.sleep(0)
        early = asyncio.create_task(take(news, 0, 1))  # and this one behind it
        await asyncio.sleep(0.6)
        looks = shelf.looks
        assert looks < 10
        assert await news.after(0, limit=7) == ([], 3)
        shelf.add()
        assert await asyncio.wait_for(early, 10) == [4]
        await waiting

    run(act())


def test_who_follows_and_who_waits_is_let_go_when_the_service_stops():
    async def act():
        shelf = Shelf()
        shelf.add()
        news = shelf.news()
        heard = []

        async def follow():
            async for notice in news.follow(0, limit=7):
                heard.append(notice.number)

        following, waiting = asyncio.create_task(follow()), asyncio.create_task(news.wait(1))
        while not heard:
            await asyncio.sleep(0.01)
        assert not following.done()
        assert not waiting.done()
        news.stop()
        await asyncio.wait_for(asyncio.gather(following, waiting, news.wait(1)), 10)
        assert heard == [1]

    run(act())


def test_many_who_wait_cost_one_look_at_a_time():
    async def act():
        shelf = Shelf()
        for _ in range(20):
            shelf.add()
        news = shelf.news()
        followers = [asyncio.create_task(take(news, number, 25 - number)) for number in [20] * 300 + [0, 5, 17]]
        await asyncio.sleep(0.1)
        before = shelf.looks
        for _ in range(5):
            shelf.add()
            await asyncio.sleep(0.3)
        found = await asyncio.wait_for(asyncio.gather(*followers), 20)
        assert found[0] == [21, 22, 23, 24, 25]
        assert found[-3:] == [list(range(1, 26)), list(range(6, 26)), list(range(18, 26))]
        # Some looks for half a second of waiting, and not some for each of three hundred.
        assert shelf.looks - before < 30

    run(act())


def test_whoever_lags_behind_what_is_kept_misses_nothing(monkeypatch):
    monkeypatch.setattr("kuber.services.registry.event_feed.RECENT", 10)

    async def act():
        shelf = Shelf()
        news = shelf.news()
        quick = asyncio.create_task(take(news, 0, 100))
        await asyncio.sleep(0)
        slow = news.follow(0, limit=7)
        shelf.add()
        seen = [(await anext(slow)).number]
        for _ in range(99):
            shelf.add()
        assert await asyncio.wait_for(quick, 20) == list(range(1, 101))
        while len(seen) < 100:
            seen.append((await asyncio.wait_for(anext(slow), 5)).number)
        assert seen == list(range(1, 101))

    run(act())


def test_a_database_that_was_away_is_looked_into_again_and_nobody_looks_for_nobody():
    async def act():
        shelf = Shelf()
        news = shelf.news()
        follower = asyncio.create_task(take(news, 0, 1))
        await asyncio.sleep(0.05)
        shelf.away = True
        shelf.add()
        await asyncio.sleep(0.4)
        assert not follower.done()
        shelf.away = False
        assert await asyncio.wait_for(follower, 5) == [1]
        await asyncio.sleep(1.2)
        looks = shelf.looks
        await asyncio.sleep(0.6)
        assert shelf.looks == looks
        shelf.add()
        assert await asyncio.wait_for(take(news, 1, 1), 5) == [2]  # whoever comes later is told too

    run(act())


def test_a_number_that_was_never_given_stops_nobody():
    """As of a hub that was restored from an older backup, or of somebody who means ill."""

    async def act():
        shelf = Shelf()
        for _ in range(5):
            shelf.add()
        news = shelf.news()
        ahead = asyncio.create_task(news.wait(10**17, 20))
        await asyncio.sleep(0.05)
        assert await news.clamp(10**17) == await news.clamp(None) == 5
        follower = asyncio.create_task(take(news, 5, 1))
        before = shelf.looks
        await asyncio.sleep(0.6)
        assert shelf.looks - before < 10  # it waits, and does not go round and round
        shelf.add()
        assert await asyncio.wait_for(follower, 5) == [6]
        ahead.cancel()

    run(act())


def test_events_newer_than_the_last_poll_are_not_sent_twice():
    """A client may know of an event from an answer of the database, before the next poll finds it."""

    async def act():
        shelf = Shelf()
        news = shelf.news()
        waiting = asyncio.create_task(news.wait(0, 20))
        await asyncio.sleep(0)
        shelf.add()
        follower = asyncio.create_task(take(news, 1, 1))
        await waiting
        shelf.add()
        assert await asyncio.wait_for(follower, 5) == [2]

    run(act())


def test_whoever_waits_survives_a_look_that_breaks():
    async def act():
        shelf = Shelf()
        news = shelf.news()
        follower = asyncio.create_task(take(news, 0, 1))
        await asyncio.sleep(0.05)
        read, shelf.entries = shelf.entries, None  # no error of ours
        await asyncio.sleep(0.4)
        shelf.entries = read
        shelf.add()
        with pytest.raises(TypeError):  # told to whoever looked next
            await asyncio.wait_for(follower, 5)
        assert await asyncio.wait_for(take(news, 0, 1), 5) == [1]

    run(act())


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


def test_a_client_hears_of_publications_on_its_task(registry_service, enrolled, published_body, watcher):
    watch = watcher.watch
    start = watch()  # at once: there is nothing to wait for before one knows where one is
    assert start.items == ()
    told = []
    thread = threading.Thread(target=lambda: told.append(watch(after=start.cursor, task="mine", seconds=15)))
    thread.start()
    publish(registry_service, enrolled, published_body, "other", "theirs")
    id = publish(registry_service, enrolled, published_body, "one", "mine")
    thread.join(15)
    (page,) = told
    assert [entry.subject for entry in page.items] == [id]
    assert page.items[0].detail["task"] == "mine"
    again = watch(after=page.cursor, task="mine", seconds=0)
    assert again.items == ()
    assert len(watch(after=start.cursor, seconds=0).items) == 2


def test_waiting_for_nothing_ends_in_time(watcher):
    start = watcher.watch(seconds=0)
    began = time.monotonic()
    page = watcher.watch(after=start.cursor, task="nobody publishes on this", seconds=1)
    assert page.items == ()
    assert int(page.cursor) >= int(start.cursor)
    assert time.monotonic() - began >= 1


def test_nobody_waits_for_longer_than_proxies_do(watcher):
    with pytest.raises(RequestRejectedError, match="seconds is refused"):
        watcher.watch(seconds=100)
