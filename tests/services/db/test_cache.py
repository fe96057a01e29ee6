"""What is remembered, and until when."""

from kuber.services.db.cache import BoundedCache


def test_remembers_what_was_read_since_the_last_change():
    known = BoundedCache(2)
    before = known.changes
    known.keep("a", 1, since=before)
    assert (known.get("a"), known.get("b")) == (1, None)
    known.forget("a")
    assert known.get("a") is None
    known.keep("a", 1, since=before)  # read before it changed
    assert known.get("a") is None
    known.keep("a", 2, since=known.changes)
    assert known.get("a") == 2


def test_forgets_one_or_all():
    known = BoundedCache(2)
    for key in "ab":
        known.keep(key, key, since=known.changes)
    known.forget("a")
    assert (known.get("a"), known.get("b")) == (None, "b")
    known.forget()
    assert known.get("b") is None


def test_holds_no_more_than_its_size():
    known = BoundedCache(2)
    for key in "abc":
        known.keep(key, key, since=known.changes)
    assert [known.get(key) for key in "abc"] == [None, None, "c"]
    nothing = BoundedCache(0)
    nothing.keep("a", 1, since=nothing.changes)
    assert nothing.get("a") is None
