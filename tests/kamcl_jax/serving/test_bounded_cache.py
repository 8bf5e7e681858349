from concurrent.futures import ThreadPoolExecutor

from kamcl_jax.serving.bounded_cache import BoundedCache


def test_what_was_used_longest_ago_is_dropped():
    cache = BoundedCache[str, str](2)
    cache.put("a", "A")
    cache.put("b", "B")
    assert cache.get("a") == "A"
    cache.put("c", "C")
    assert [cache.get(key) for key in "abc"] == ["A", None, "C"]


def test_sizes_count():
    cache = BoundedCache[str, str](6, len)
    cache.put("a", "1234")
    cache.put("b", "12")
    assert cache.get("a") == "1234"
    cache.put("a", "1")  # makes room
    cache.put("c", "123")
    assert [cache.get(key) for key in "abc"] == ["1", "12", "123"]


def test_a_value_that_is_too_large_is_not_kept():
    cache = BoundedCache[str, str](3, len)
    cache.put("a", "1234")
    cache.put("b", "12")
    cache.put("c", "1234")  # drops nothing else
    assert [cache.get(key) for key in "abc"] == [None, "12", None]


def test_threads_may_share_it():
    cache = BoundedCache[int, str](50, len)

    def use(number):
        cache.put(number % 70, "x" * (number % 5))
        return cache.get((number * 7) % 70)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(use, range(5000)))
    kept = [cache.get(key) for key in range(70)]
    assert any(found)
    assert 46 <= sum(map(len, filter(None, kept))) <= 50
