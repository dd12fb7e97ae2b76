from __future__ import annotations

import hashlib
import sqlite3
import threading

import pytest

from cert.core.errors import ConfigurationError
from cert.inputs.ids import IdIndex, content_id


def test_content_id_is_a_plain_hash_that_anybody_can_recompute() -> None:
    assert content_id("Héllo") == hashlib.sha256("Héllo".encode()).hexdigest()[:16]
    assert content_id("a", "b") == hashlib.sha256(b"a\0b").hexdigest()[:16]
    assert content_id("a") != content_id("a", "b")


def test_repeated_content_is_numbered() -> None:
    base = content_id("a")
    with IdIndex() as index:
        ids = [index.claim_content("a", None, "s", line) for line in range(1, 5)]
        assert index.claim_content("a", "scored", "s", 5) == content_id("a", "scored")
    assert ids == [base, f"{base}-2", f"{base}-3", f"{base}-4"]


def test_a_given_id_is_free_once() -> None:
    with IdIndex() as index:
        assert index.claim("x", "a.jsonl", 3) is None
        assert index.claim("X", "a.jsonl", 4) is None
        assert index.claim("x", "b.jsonl", 9) == ("a.jsonl", 3)
        assert index.claim("x", "c.jsonl", 9) == ("a.jsonl", 3)


def test_composed_and_decomposed_are_two_ids() -> None:
    with IdIndex() as index:
        assert index.claim("\u00e9", "s", 1) is None
        assert index.claim("e\u0301", "s", 2) is None


def test_given_and_derived_ids_do_not_collide() -> None:
    base = content_id("a")
    with IdIndex() as index:
        assert index.claim(f"{base}-2", "s", 1) is None
        assert index.claim_content("a", None, "s", 2) == base
        assert index.claim_content("a", None, "s", 3) == f"{base}-3"
        assert index.claim(base, "s", 4) == ("s", 2)
        assert index.claim(f"{base}-3", "s", 5) == ("s", 3)


def test_given_first_then_derived() -> None:
    base = content_id("a")
    with IdIndex() as index:
        assert index.claim(base, "s", 1) is None
        assert index.claim_content("a", None, "s", 2) == f"{base}-2"


def test_may_be_advanced_by_another_thread() -> None:
    with IdIndex() as index:
        found: list[tuple[str, int] | None] = []
        index.claim("x", "s", 1)
        thread = threading.Thread(target=lambda: found.append(index.claim("x", "s", 2)))
        thread.start()
        thread.join()
    assert found == [("s", 1)]


def test_a_full_disk_is_an_error_with_a_hint() -> None:
    with IdIndex() as index:
        # The database's own limit: to SQLite the same as a disk without space.
        index._execute("PRAGMA max_page_count=4")
        with pytest.raises(ConfigurationError, match="database or disk is full") as caught:
            all(index.claim(f"id {line}", "s", line) is None for line in range(10_000))
        assert caught.value.hint is not None
        assert "TMPDIR" in caught.value.hint
        assert isinstance(caught.value.__cause__, sqlite3.Error)
