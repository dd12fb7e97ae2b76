"""Lines: leaf hash and links against bytes made by hand; what has the form of a line."""

from __future__ import annotations

import hashlib
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cert.ledger.canonical import CanonicalError, canonical_bytes
from cert.ledger.keys import PublicKey
from cert.ledger.line import (
    MAX_LINE_BYTES,
    check_body,
    genesis_prev,
    is_control,
    join_links,
    leaf_hash,
    parse_links,
)
from tests.ledger.ledgers import ORIGIN, control, genesis_line, line_of, private, raw

PREV = bytes(range(32))
PREFIX = b'{"_prev":"' + PREV.hex().encode() + b'","_seq":'

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.from_regex(r"\A[a-z][a-z_]*\Z"), VALUES, min_size=1, max_size=4)


def test_leaf_hash_is_that_of_rfc_6962() -> None:
    # printf '\000' | sha256sum; the leaf hash of an empty entry in RFC 6962 test vectors.
    assert (
        leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert leaf_hash(b'{"a":1}') == hashlib.sha256(b'\x00{"a":1}').digest()


def test_the_genesis_links_to_its_origin_and_key() -> None:
    key = private("first")
    line = genesis_line(key)
    want = json.loads(line)["_prev"]
    assert genesis_prev(ORIGIN, PublicKey(raw(key))).hex() == want
    assert genesis_prev(ORIGIN + "x", PublicKey(raw(key))).hex() != want
    assert genesis_prev(ORIGIN, PublicKey(raw(private("second")))).hex() != want


@given(prev=st.binary(min_size=32, max_size=32), seq=st.integers(0, 2**53 - 1), record=RECORDS)
def test_joined_links_are_the_canonical_bytes_and_are_read_back(
    prev: bytes, seq: int, record: dict[str, object]
) -> None:
    body = canonical_bytes(record)
    check_body(body)
    line = join_links(prev, seq, body)
    assert line == rfc8785.dumps({"_prev": prev.hex(), "_seq": seq, **record})
    assert parse_links(line) == (prev.hex().encode(), seq)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"a":1}',
        PREFIX + b'1,"A":1}',
        PREFIX + b'1,"":1}',
        PREFIX + b"1}",
        PREFIX + b'01,"a":1}',
        PREFIX + b'-1,"a":1}',
        PREFIX + b'1.0,"a":1}',
        PREFIX + b'1e3,"a":1}',
        PREFIX + b',"a":1}',
        PREFIX + b'12345678901234567,"a":1}',
        PREFIX + b'1, "a":1}',
        b" " + PREFIX + b'1,"a":1}',
        b'{"_prev":"' + PREV.hex().upper().encode() + b'","_seq":1,"a":1}',
        b'{"_prev":"' + PREV.hex()[:-1].encode() + b'","_seq":1,"a":1}',
        b'{"_seq":1,"_prev":"' + PREV.hex().encode() + b'","a":1}',
        b"\x00" * 200,
    ],
)
def test_what_has_not_the_form_of_a_line_has_no_links(line: bytes) -> None:
    assert parse_links(line) is None


def test_a_line_is_as_long_as_the_page_allows_and_no_longer() -> None:
    start = PREFIX + b'7,"a":"'
    longest = start + b"x" * (MAX_LINE_BYTES - len(start) - 2) + b'"}'
    assert len(longest) == 16_777_216
    assert parse_links(longest) == (PREV.hex().encode(), 7)
    assert parse_links(longest + b" ") is None


@given(st.binary(max_size=200))
def test_any_bytes_have_links_or_none(line: bytes) -> None:
    links = parse_links(PREFIX + line)
    assert links is None or (links.prev == PREV.hex().encode() and links.seq >= 0)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"_a":1}', b'{"A":1}', b'{"":1}', b'{"\xc3\xa9":1}', b"null"]
)
def test_a_record_begins_with_a_lower_case_key(body: bytes) -> None:
    with pytest.raises(CanonicalError, match="lower-case letter"):
        check_body(body)


def test_a_record_is_one_line() -> None:
    with pytest.raises(CanonicalError, match="two lines"):
        check_body(b'{"a":1}\n{"b":2}')


def test_a_record_leaves_room_for_its_links() -> None:
    limit = MAX_LINE_BYTES - 128
    body = b'{"a":"' + b"x" * (limit - 8) + b'"}'
    assert len(body) == limit
    check_body(body)
    assert parse_links(join_links(PREV, 10**16 - 1, body)) is not None
    with pytest.raises(CanonicalError, match=f"a record of {limit + 1} bytes"):
        check_body(body[:-2] + b'x"}')


@pytest.mark.parametrize("kind", ["genesis", "key", "erased", "pruned", "recovered"])
def test_control_records_begin_with_the_clock(kind: str) -> None:
    line = line_of(PREV, 3, control(kind))
    assert is_control(kind, line)
    assert not is_control("other", line)
    # Another first key: never one.
    assert not is_control(kind, line_of(PREV, 3, control(kind, assessment={})))


def test_a_control_record_is_one_by_its_own_kind_alone() -> None:
    inner = line_of(PREV, 3, control("note", note={"kind": "key"}))
    assert b'"kind":"key"' in inner
    assert not is_control("key", inner)


def test_what_looks_like_a_control_record_and_is_not_canonical_counts_as_one() -> None:
    assert is_control("key", line_of(PREV, 3, control("key"))[:-1])
