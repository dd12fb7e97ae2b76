from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.inputs.helpers import reasons, seen

if TYPE_CHECKING:
    from tests.inputs.helpers import Read


def test_nothing_comes_of_nothing(read: Read) -> None:
    for data in (b"", b"\n", b"\n\n\r\n  \n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"):
        assert read(data) == []


def test_a_prompt_a_line_blank_lines_count(read: Read) -> None:
    assert seen(read(b"one\n\n  two \n \t\nthree")) == [(1, "one"), (3, "  two "), (5, "three")]


def test_bom_at_the_start_only(read: Read) -> None:
    assert seen(read(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n")) == [(1, "one"), (2, "\ufefftwo")]


def test_crlf_ends_a_line_and_other_line_ends_are_content(read: Read) -> None:
    others = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h"
    data = f"one\r\ntwo\r\r\n{others}\nend\r\n".encode()
    assert seen(read(data)) == [(1, "one"), (2, "two\r"), (3, others), (4, "end")]


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (b"\xff", "at byte 1: invalid start byte"),
        (b"ab\xc0\x80", "at byte 3: invalid start byte"),
        (b"ab\xe2\x82", "at byte 3: unexpected end of data"),
        (b"\xe2\x28\xa1", "at byte 1: invalid continuation byte"),
        (b"\xed\xa0\x80", "at byte 1: invalid continuation byte"),
        (b"\xed\xb0\x80\xed\xa0\x80", "at byte 1: invalid continuation byte"),
        (b"\xf4\x90\x80\x80", "at byte 1: invalid continuation byte"),
    ],
)
def test_a_line_that_is_no_utf8_is_refused_and_the_others_go_on(
    read: Read, bad: bytes, where: str
) -> None:
    items = read(b"before\n" + bad + b"\nafter\n")
    assert seen(items) == [(1, "before"), (2, "!InvalidInput"), (3, "after")]
    assert reasons(items) == [f"not valid UTF-8 {where}"]


def test_a_raw_nul_is_refused(read: Read) -> None:
    items = read(b"before\na\0b\nafter\n")
    assert seen(items) == [(1, "before"), (2, "!InvalidInput"), (3, "after")]
    assert "NUL" in reasons(items)[0]


def test_length_is_counted_in_characters_not_bytes(read: Read) -> None:
    fits, long = "\U0001f600" * 10, "x" * 11
    items = read(f"{fits}\r\n{long}\n{'y' * 5000}\nlast".encode(), max_chars=10)
    assert seen(items) == [(1, fits), (2, "!PromptTooLong"), (3, "!PromptTooLong"), (4, "last")]
    assert reasons(items) == [
        "the prompt has 11 characters; at most 10 are accepted",
        "longer than 40 bytes; at most 10 characters are accepted",
    ]


def test_custom_field_names_mean_nothing_in_text(read: Read) -> None:
    assert seen(read(b"one\n", id_field="uid")) == [(1, "one")]


def test_delimiter(read: Read) -> None:
    data = b"one\nstill one\n---\n\n  two\n---\n---\n\nthree\xff\n---four"
    items = read(data, delimiter="---")
    assert seen(items) == [
        (1, "one\nstill one"),
        (5, "  two"),
        (7, "!InvalidInput"),
        (10, "four"),
    ]


def test_nul_as_delimiter(read: Read) -> None:
    assert seen(read(b"a\0b\nc\0d\0e\0f\0", delimiter="\0")) == [
        (1, "a"),
        (1, "b\nc"),
        (2, "d"),
        (2, "e"),
        (2, "f"),
    ]


def test_reasons_do_not_repeat_the_input(read: Read) -> None:
    secret = b"sk-planted-4711"
    items = read(secret + b"\xff\n" + secret + b"\0\n" + secret * 99 + b"\n", max_chars=100)
    assert len(items) == len(reasons(items)) == 3
    assert not any("sk-planted" in reason for reason in reasons(items))
