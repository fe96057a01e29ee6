"""A bounded cache with invalidation."""

from kuber.services.db.cache import BoundedCache


def test_caches_only_values_read_since_the_last_invalidation():
    cache = BoundedCache(2)
    before = cache.version
    cache.put("a", 1, version=before)
    assert (cache.get("a"), cache.get("b")) == (1, None)
    cache.invalidate("a")
    assert cache.get("a") is None
    cache.put("a", 1, version=before)  # read before the change
    assert cache.get("a") is None
    cache.put("a", 2, version=cache.version)
    assert cache.get("a") == 2


def test_invalidates_one_key_or_all():
    cache = BoundedCache(2)
    for key in "ab":
        cache.put(key, key, version=cache.version)
    cache.invalidate("a")
    assert (cache.get("a"), cache.get("b")) == (None, "b")
    cache.invalidate()
    assert cache.get("b") is None


def test_holds_no_more_than_its_size():
    cache = BoundedCache(2)
    for key in "abc":
        cache.put(key, key, version=cache.version)
    assert [cache.get(key) for key in "abc"] == [None, None, "c"]
    disabled = BoundedCache(0)
    disabled.put("a", 1, version=disabled.version)
    assert disabled.get("a") is None
