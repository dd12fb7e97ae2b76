from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from cert.backends.protocol import FinishReason, Generation, SamplingParams
from cert.inputs.case import PromptCase
from cert.signals.summary import summarize
from cert.trajectory.cache import CacheInfo, Measured, ResultCache, cache_key
from tests.fakes import fake_identity, fake_trace

CASE = PromptCase(id="one", text="Hello")
GREEDY = SamplingParams()
DRAWN = SamplingParams(temperature=0.7, seed=1)
IDENTITY = fake_identity()


def measured(text: str, reason: FinishReason = FinishReason.LENGTH) -> Measured:
    trace = fake_trace(text.split())
    generation = Generation((0,), text, reason, trace, GREEDY, "cpu", 0.0, 1.0)
    return Measured(generation, summarize(trace), IDENTITY)


def test_the_least_recently_used_entry_goes_first() -> None:
    cache = ResultCache(2)
    cache.put("a", measured("a"))
    cache.put("b", measured("b"))
    assert cache.get("a") == measured("a")
    cache.put("c", measured("c"))
    assert cache.get("b") is None
    assert cache.get("a") == measured("a")
    assert cache.get("c") == measured("c")
    assert cache.info() == CacheInfo(hits=3, misses=1, size=2, max_size=2)


def test_putting_again_replaces_and_refreshes() -> None:
    cache = ResultCache(2)
    cache.put("a", measured("a"))
    cache.put("b", measured("b"))
    cache.put("a", measured("a again"))
    cache.put("c", measured("c"))
    assert cache.get("b") is None
    assert cache.get("a") == measured("a again")


@pytest.mark.parametrize("reason", [FinishReason.TIMEOUT, FinishReason.CANCELLED])
def test_what_was_cut_off_is_not_kept(reason: FinishReason) -> None:
    cache = ResultCache(2)
    cache.put("a", measured("a", reason))
    assert cache.get("a") is None


def text_of(tokens: int) -> str:
    """Words; with its prompt of one token, a measurement of so many tokens."""
    return "word " * (tokens - 1)


def test_long_texts_leave_room_for_fewer() -> None:
    cache = ResultCache(3)  # room for 384 tokens
    cache.put("a", measured(text_of(200)))
    cache.put("b", measured(text_of(100)))
    cache.put("b", measured(text_of(184)))
    assert cache.info().size == 2
    cache.put("c", measured(text_of(1)))
    assert cache.get("a") is None
    assert cache.get("b") == measured(text_of(184))
    cache.put("d", measured(text_of(385)))
    assert (cache.get("d"), cache.info().size) == (None, 2)
    cache.clear()
    cache.put("e", measured(text_of(384)))
    assert cache.get("e") is not None


def test_a_cache_of_size_zero_keeps_nothing() -> None:
    cache = ResultCache(0)
    cache.put("a", measured("a"))
    assert cache.info() == CacheInfo(hits=0, misses=0, size=0, max_size=0)


def test_clearing_forgets_entries_and_counts() -> None:
    cache = ResultCache(2)
    cache.put("a", measured("a"))
    cache.get("a")
    cache.clear()
    assert cache.get("a") is None
    assert cache.info() == CacheInfo(hits=0, misses=1, size=0, max_size=2)


def test_many_threads_leave_it_whole() -> None:
    cache = ResultCache(8)
    entry = measured("x")

    def work(first: int) -> None:
        for number in range(first, first + 500):
            cache.put(number % 20, entry)
            cache.get((number + 7) % 20)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    info = cache.info()
    assert info.size == 8
    assert info.hits + info.misses == 4000


def test_unseeded_sampling_has_no_key() -> None:
    assert cache_key(IDENTITY, CASE, replace(DRAWN, seed=None), "auto") is None


def test_a_scored_response_has_a_key_whatever_the_sampling() -> None:
    case = replace(CASE, response="Hi")
    assert cache_key(IDENTITY, case, replace(DRAWN, seed=None), "auto") is not None


def test_the_id_counts_only_where_it_keys_the_draws() -> None:
    other = replace(CASE, id="two", source="file", line=7)
    assert cache_key(IDENTITY, CASE, GREEDY, "auto") == cache_key(IDENTITY, other, GREEDY, "auto")
    assert cache_key(IDENTITY, CASE, DRAWN, "auto") != cache_key(IDENTITY, other, DRAWN, "auto")


def test_everything_that_a_measurement_depends_on_is_in_the_key() -> None:
    keys = [
        cache_key(IDENTITY, CASE, GREEDY, "auto"),
        cache_key(IDENTITY, CASE, GREEDY, "never"),
        cache_key(IDENTITY, replace(CASE, text="Hello "), GREEDY, "auto"),
        cache_key(IDENTITY, replace(CASE, response="Hi"), GREEDY, "auto"),
        cache_key(IDENTITY, CASE, replace(GREEDY, max_new_tokens=65), "auto"),
        cache_key(IDENTITY, CASE, replace(GREEDY, stop=("x",)), "auto"),
        cache_key(IDENTITY, CASE, DRAWN, "auto"),
        cache_key(IDENTITY, CASE, replace(DRAWN, seed=2), "auto"),
        cache_key(IDENTITY, CASE, replace(DRAWN, top_k=5), "auto"),
        cache_key(IDENTITY, CASE, replace(DRAWN, top_p=0.9), "auto"),
        cache_key(replace(IDENTITY, digest="sha256:1"), CASE, GREEDY, "auto"),
        cache_key(replace(IDENTITY, tokenizer_digest="sha256:1"), CASE, GREEDY, "auto"),
        cache_key(replace(IDENTITY, dtype="bfloat16"), CASE, GREEDY, "auto"),
        cache_key(replace(IDENTITY, quantization="dynamic-int8"), CASE, GREEDY, "auto"),
        cache_key(replace(IDENTITY, device="cuda:0"), CASE, GREEDY, "auto"),
    ]
    assert len(set(keys)) == len(keys)
