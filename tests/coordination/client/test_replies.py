"""Whatever comes back is a reply or a typed error, never another exception."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.faults import (
    AttemptError,
    PassingError,
    build_status_error,
    parse_retry_after_s,
)
from cert.coordination.protocol import CallFailure, Reply, StopReason, Usage
from cert.coordination.replies import ReplySchema, parse_message, parse_usage
from cert.coordination.scrub import Scrubber
from cert.coordination.streams import MessageAssembler
from tests.coordination.client.stub import BLOCK, DELTA, END_BLOCK, START, STOP, message, part

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
KNOWN = st.sampled_from(
    ["message", "text", "type", "assistant", "end_turn", "error", "overloaded_error", "thinking"]
)
FIELDS = st.sampled_from(
    [*message(), "text", "error", "details", "error_code", "input_tokens", "output_tokens"]
)
ODD = st.recursive(
    JSON | KNOWN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=8,
)
SCRUB = Scrubber([])


@settings(deadline=None, max_examples=60)
@given(document=ODD)
def test_any_document_is_a_reply_or_invalid(document: object) -> None:
    try:
        reply = parse_message(document)
    except AttemptError as error:
        assert (error.failure, error.is_maybe_billed) == (  # noqa: PT017 - either is right
            CallFailure.INVALID,
            error.usage is None,
        )
    else:
        assert isinstance(reply, Reply)


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(list(message())), value=ODD)
def test_a_message_with_one_field_replaced_never_becomes_another_reply(
    name: str, value: object
) -> None:
    good = parse_message(message())
    try:
        reply = parse_message(message(**{name: value}))
    except AttemptError as error:
        assert error.failure is CallFailure.INVALID  # noqa: PT017 - either outcome is right
        return
    kept = {"content": "text", "id": "message_id"}.get(name, name)
    for field in ("text", "stop_reason", "usage", "model", "message_id"):
        assert field == kept or getattr(reply, field) == getattr(good, field)


@settings(deadline=None, max_examples=60)
@given(documents=st.lists(ODD | st.sampled_from([START, BLOCK, part("4"), DELTA, STOP])))
def test_any_events_are_a_message_or_a_typed_error(documents: list[object]) -> None:
    assembler = MessageAssembler()
    try:
        for document in documents:
            assembler.add(document)
        parse_message(assembler.message())
    except PassingError as error:
        assert error.failure is CallFailure.TRANSIENT  # noqa: PT017 - any of three is right
    except AttemptError as error:
        assert error.failure is CallFailure.INVALID  # noqa: PT017 - any of three is right


@settings(deadline=None)
@given(pieces=st.lists(st.text(max_size=5).filter(lambda text: text.isprintable())))
def test_a_text_in_pieces_is_the_text(pieces: list[str]) -> None:
    assembler = MessageAssembler()
    for event in [START, BLOCK, *map(part, pieces), END_BLOCK, DELTA, STOP]:
        # Through JSON, as on the wire: the assembler must not change what it was given.
        assembler.add(json.loads(json.dumps(event)))
    reply = parse_message(assembler.message())
    assert reply.text == "".join(pieces)
    assert reply.usage == Usage(10, 5)


def test_the_last_word_on_usage_counts_and_null_is_no_word() -> None:
    assembler = MessageAssembler()
    delta = DELTA | {"usage": {"output_tokens": 7, "input_tokens": None}}
    for event in (START, BLOCK, part("x"), END_BLOCK, delta, STOP):
        assembler.add(event)
    assert parse_message(assembler.message()).usage == Usage(10, 7)


def test_blocks_are_joined_in_the_order_of_their_index() -> None:
    def block(index: int, text: str) -> dict[str, Any]:
        return BLOCK | {"index": index, "content_block": {"type": "text", "text": text}}

    assembler = MessageAssembler()
    for event in (START, block(1, "2"), block(0, "4"), DELTA, STOP):
        assembler.add(event)
    assert parse_message(assembler.message()).text == "42"


@settings(deadline=None, max_examples=60)
@given(status=st.integers(100, 599), body=ODD | st.text())
def test_any_error_body_has_one_meaning(status: int, body: object) -> None:
    error = build_status_error(status, body, headers={}, scrub=SCRUB, now_s=0.0)
    assert error.failure in {
        CallFailure.TRANSIENT,
        CallFailure.FATAL,
        CallFailure.REJECTED,
        CallFailure.INVALID,
    }
    assert isinstance(error, PassingError) is (error.failure is CallFailure.TRANSIENT)
    assert len(error.message) <= 2000
    assert len(error.error) <= 100


@settings(deadline=None)
@given(text=st.text(max_size=30) | st.floats().map(repr))
def test_any_retry_after_is_a_wait_or_none(text: str) -> None:
    wait_s = parse_retry_after_s({"retry-after": text}, now_s=0.0)
    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, math.inf),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "Thu, 99 Jan 1970 00:00:10 GMT"}, None),
        ({"retry-after-ms": "nan", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "2500", "retry-after": "9"}, 2.5),
    ],
)
def test_retry_after(headers: dict[str, str], wait_s: float | None) -> None:
    assert parse_retry_after_s(headers, now_s=40.0) == wait_s


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1.0},
        {"input_tokens": 1, "output_tokens": 10**9 + 1},
        {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": -1},
        {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": "1"},
        [],
        None,
    ],
)
def test_what_is_no_usage_is_invalid(usage: object) -> None:
    with pytest.raises(AttemptError) as raised:
        parse_usage(usage)
    assert raised.value.is_maybe_billed


@pytest.mark.parametrize("text", ["[1]", '[{"a": [1, 2.5]}]'])
def test_a_schema_may_refer_to_itself(text: str) -> None:
    schema = ReplySchema(
        {
            "$ref": "#/$defs/list",
            "$defs": {"list": {"type": "array", "items": {"type": ["integer", "object"]}}},
        }
    )
    schema.check(Reply(text=text, stop_reason=StopReason.END_TURN, usage=Usage(1, 1), model="m"))


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:1/a", "file:///etc/passwd", "other.json", "https://h/x"]
)
def test_a_schema_reaches_nothing_outside(reference: str) -> None:
    with pytest.raises(AttemptError, match="schema") as raised:
        ReplySchema({"$ref": reference})
    assert raised.value.failure is CallFailure.REJECTED


def test_lone_surrogates_are_no_text() -> None:
    for changes in ({"model": "\ud800"}, {"id": "\ud800"}):
        with pytest.raises(AttemptError, match="surrogates"):
            parse_message(message(**changes))


@pytest.mark.parametrize(
    "documents",
    [
        ["text"],
        [{}],
        [{"type": 7}],
        [{"type": "message_start"}],
        [START, BLOCK | {"index": "0"}],
        [START, BLOCK | {"index": True}],
        [START, BLOCK | {"content_block": None}],
        [START, BLOCK | {"content_block": {"type": "text"}}],
        [START, BLOCK, BLOCK],
        [START, part("4")],
        [START, BLOCK, part("4") | {"delta": "4"}],
        [START, BLOCK, part("4") | {"delta": {"type": "text_delta", "text": 4}}],
        [START, STOP, BLOCK],
        [START, DELTA | {"delta": None}],
        [STOP],
    ],
)
def test_events_that_are_none_are_invalid(documents: list[object]) -> None:
    assembler = MessageAssembler()
    for document in documents[:-1]:
        assembler.add(document)
    with pytest.raises(AttemptError, match="the reply is no message"):
        assembler.add(documents[-1])


def test_the_thoughts_of_a_stream_are_no_text() -> None:
    thought = BLOCK | {"content_block": {"type": "thinking", "thinking": "", "signature": ""}}
    thinking = part("") | {"delta": {"type": "thinking_delta", "thinking": "hm"}}
    said = BLOCK | {"index": 1}
    assembler = MessageAssembler()
    for event in (
        START,
        thought,
        thinking,
        END_BLOCK,
        said,
        part("42") | {"index": 1},
        DELTA,
        STOP,
    ):
        assembler.add(event)
    assert parse_message(assembler.message()).text == "42"


def test_a_stream_whose_usage_is_none_is_invalid() -> None:
    assembler = MessageAssembler()
    for event in (START | {"message": message(usage=None)}, BLOCK, part("x"), DELTA, STOP):
        assembler.add(event)
    with pytest.raises(AttemptError, match="what it cost"):
        parse_message(assembler.message())
