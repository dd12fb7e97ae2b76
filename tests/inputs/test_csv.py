from __future__ import annotations

import csv
import time
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ConfigurationError
from cert.inputs.case import PromptCase
from cert.inputs.ids import content_id
from tests.inputs.helpers import only, reasons, seen

if TYPE_CHECKING:
    from tests.inputs.helpers import Read

NAME = "input.csv"


def test_rfc_4180(read: Read) -> None:
    data = (
        b"\xef\xbb\xbfid,prompt,label,ignored\r\n"
        b'1,"comma, ""quote"", line\r\nend",good,x\r\n'
        b"\r\n"
        b'2, spaces ,"",\r\n'
        b'3,5" pipe,bad,"last"'
    )
    items = read(data, NAME)
    assert seen(items) == [(2, 'comma, "quote", line\r\nend'), (5, " spaces "), (6, '5" pipe')]
    assert [item.label for item in items if isinstance(item, PromptCase)] == ["good", None, "bad"]


def test_an_empty_cell_is_absent_but_an_empty_response_is_refused(read: Read) -> None:
    items = read(b"id,prompt,response,group\n,a,r,\nx,b,,g\n", NAME)
    assert seen(items) == [(2, "a"), (3, "!InvalidInput")]
    assert items[0] == PromptCase(
        id=content_id("a", "r"), text="a", response="r", source=items[0].source, line=2
    )
    assert reasons(items) == ["the response is empty: there is nothing to score"]


def test_tabs_and_other_delimiters(read: Read) -> None:
    assert only(read(b"id\tprompt\n1\ta,b\n", "input.tsv")).text == "a,b"
    assert only(read(b"id;prompt\n1;a,b\n", NAME, delimiter=";")).text == "a,b"
    assert only(read(b"id|prompt\n1|a,b\n", "input.tsv", delimiter="|")).text == "a,b"


@pytest.mark.parametrize("delimiter", ["--", '"', "\n", "\r", "\0"])
def test_impossible_delimiters(read: Read, delimiter: str) -> None:
    with pytest.raises(ConfigurationError, match="CSV delimiter"):
        read(b"prompt\na\n", NAME, delimiter=delimiter)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty; CSV needs a header line"),
        (b"\n\n", "the file is empty; CSV needs a header line"),
        (b"\xff,prompt\n", "the header cannot be read: not valid UTF-8"),
        (b'"prompt\na\n', "the header cannot be read: a quoted field is not closed"),
        (b"prompt," * 1_000_000, "the header cannot be read: longer than"),
        (b"question,id\na,1\n", "there is no column 'prompt'; found: 'question', 'id'"),
        (b"prompt,id,prompt\na,1,b\n", "there are 2 columns 'prompt'"),
        (b"Prompt\x1b[2J\na\n", r"there is no column 'prompt'; found: 'Prompt\\x1b\[2J'"),
    ],
)
def test_headers_that_cannot_be_used(read: Read, data: bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        read(data, NAME)


def test_a_missing_column_is_guessed_and_many_columns_are_not_all_shown(read: Read) -> None:
    names = ",".join(f"column {at}" for at in range(30))
    with pytest.raises(ConfigurationError) as caught:
        read(f"prompts,{'x' * 100},{names}\n".encode(), NAME)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean 'prompts'?")
    assert caught.value.message.endswith("'column 17' and 12 more")
    assert f"'{'x' * 60}...'" in caught.value.message


def test_a_column_named_on_purpose_must_be_there(read: Read) -> None:
    assert only(read(b"prompt\na\n", NAME)).label is None
    with pytest.raises(ConfigurationError, match="no column 'answer'"):
        read(b"prompt\na\n", NAME, response_field="answer")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"3", "the row has 1 fields, the header has 2"),
        (b"3,c,d", "the row has 3 fields, the header has 2"),
        (b"3,\xff", "not valid UTF-8"),
        (b"3,\xed\xb3\xbf", "not valid UTF-8"),
        (b"3,a\0b", "holds a NUL byte"),
        (b"3,a\rb", "a carriage return stands in a field without quotes"),
        (b'3,"a" b', "a quoted field goes on after its closing quote"),
        (b"3,", "the prompt is empty"),
        (b"2,c", "the id of "),
        (b"x\x1b,c", "the id holds a control character"),
        (b"3," + b"c" * 200_000, "a field is too long"),
    ],
)
def test_a_bad_row_is_refused_and_the_others_go_on(read: Read, bad: bytes, reason: str) -> None:
    items = read(b"id,prompt\n2,before\n" + bad + b'\n4,"after,\nwards"\n', NAME)
    assert seen(items) == [(2, "before"), (3, "!InvalidInput"), (4, "after,\nwards")]
    assert reasons(items)[0].startswith(reason)


def test_a_row_over_the_limits(read: Read) -> None:
    data = b"id,prompt\n1," + b"a" * 11 + b"\n2," + b"b" * 10 + b"\n3," + b"c" * 70_000 + b"\n4,d"
    items = read(data, NAME, max_chars=10)
    assert seen(items) == [(2, "!PromptTooLong"), (3, "b" * 10), (4, "!PromptTooLong"), (5, "d")]


def test_long_prompts_fit_where_they_are_allowed(read: Read) -> None:
    before = csv.field_size_limit()
    try:
        long = "x" * 300_000
        assert only(read(f"prompt\n{long}\n".encode(), NAME, max_chars=300_000)).text == long
    finally:
        csv.field_size_limit(before)


def test_an_unclosed_quote_takes_only_its_own_line(read: Read) -> None:
    data = b'id,prompt\n1,"open\n2,two\n3,three\n4,"four, too"\n5,"last'
    assert seen(read(data, NAME)) == [
        (2, "!InvalidInput"),
        (3, "two"),
        (4, "three"),
        (5, "four, too"),
        (6, "!InvalidInput"),
    ]


def test_an_unclosed_quote_before_a_line_over_the_limit(read: Read) -> None:
    data = b'id,prompt\n1,"open\n2,two\n3,' + b"x" * 70_000 + b"\n4,four\n"
    assert seen(read(data, NAME, max_chars=10)) == [
        (2, "!InvalidInput"),
        (3, "two"),
        (4, "!PromptTooLong"),
        (5, "four"),
    ]


def test_an_unclosed_quote_over_the_limit_of_a_record(read: Read) -> None:
    rows = b"".join(b"%d,%s\n" % (at, b"x" * 1000) for at in range(300))
    items = read(b'id,prompt\n-1,"open\n' + rows, NAME, max_chars=1000)
    assert seen(items)[:2] == [(2, "!InvalidInput"), (3, "x" * 1000)]
    assert len(items) == 301
    assert len(reasons(items)) == 1


def test_in_one_column_the_lines_of_a_broken_record_are_skipped_and_named(read: Read) -> None:
    items = read(b'prompt\nfirst\n"open\nnot a row" but text\nlast\n', NAME)
    assert seen(items) == [(2, "first"), (3, "!InvalidInput"), (5, "last")]
    assert reasons(items) == [
        "a quoted field goes on after its closing quote; skipped up to line 4"
    ]


def test_reading_again_is_bounded(read: Read) -> None:
    # Each line leaves a quote open, seen from outside a field as from inside one.
    data = b"id,prompt\n" + b'a",x,"c\n' * 200_000
    begun = time.process_time()
    items = read(data, NAME, max_chars=100)
    assert time.process_time() - begun < 10
    assert len(items) == len(reasons(items))
    # Every line is refused by itself or named as skipped.
    expected = 2
    for item, reason in zip(items, reasons(items), strict=True):
        assert item.line == expected
        _, _, last = reason.partition("skipped up to line ")
        expected = int(last or item.line) + 1
    assert expected == 200_002
