from __future__ import annotations

import gc
import json
import time
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import InvalidInput
from cert.inputs.case import PromptCase
from cert.inputs.jsonl_rows import parse_object
from tests.inputs.helpers import only, reasons, seen

if TYPE_CHECKING:
    from tests.inputs.helpers import Read

NAME = "input.jsonl"


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def test_all_fields(read: Read) -> None:
    data = line(prompt="p", id="i", response="r", group="g", label="l", other=[1.5, {"a": None}])
    case = only(read(data, NAME))
    assert case.source.endswith(NAME)
    assert (case.text, case.id, case.response, case.group, case.label, case.line) == (
        *("p", "i", "r", "g", "l"),
        1,
    )


def test_fields_of_other_names(read: Read) -> None:
    data = line(q="p", uid=7, answer="r", topic=3, ok=True, prompt=["not", "read"])
    case = only(
        read(
            data,
            NAME,
            prompt_field="q",
            id_field="uid",
            response_field="answer",
            group_field="topic",
            label_field="ok",
        )
    )
    assert (case.text, case.id, case.response, case.group, case.label) == (
        *("p", "7", "r", "3", "true"),
    )


def test_a_field_named_on_purpose_must_be_there_but_may_be_null(read: Read) -> None:
    data = line(prompt="a", answer=None) + line(prompt="b")
    items = read(data, NAME, response_field="answer")
    assert seen(items) == [(1, "a"), (2, "!InvalidInput")]
    assert reasons(items) == ["there is no field 'answer'"]


def test_null_is_absent(read: Read) -> None:
    case = only(read(line(prompt="p", id=None, response=None, group=None, label=None), NAME))
    assert (case.id, case.response, case.group, case.label) == (
        "148de9c5a7a44d19",
        *(None, None, None),
    )


def test_line_ends_and_blank_lines(read: Read) -> None:
    data = b"\xef\xbb\xbf" + line(prompt="a") + b"\r\n \t\r\n" + line(prompt="b").strip() + b"\r\n"
    raw = '{"prompt": "c\u2028d\u0085e"}\n'.encode()
    last = b'{"prompt": "end"}'
    assert seen(read(data + raw + last, NAME)) == [
        (1, "a"),
        (4, "b"),
        (5, "c\u2028d\u0085e"),
        (6, "end"),
    ]


def test_strings_are_kept_exactly(read: Read) -> None:
    text = " \u0000\x1b]52;c;aGk=\x07\r\n\te\u0301 \u00e9 \U0001f600\u202e"
    assert only(read(line(prompt=text), NAME)).text == text


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b"nonsense", "not JSON: Expecting value at column 1"),
        (b'{"prompt": "a"} {}', "not JSON: Extra data at column 17"),
        (b'\xef\xbb\xbf{"prompt": "a"}', "not JSON: "),
        (b'{"prompt": "a\0b"}', "not JSON: Invalid control character at column 14"),
        (b'{"prompt": "a\rb"}', "not JSON: Invalid control character at column 14"),
        (b'{"prompt": "a\x0bb"}', "not JSON: Invalid control character at column 14"),
        (b'{"prompt": "\\x41"}', "not JSON: Invalid \\escape at column 13"),
        (b'{"prompt": "a",}', "not JSON: "),
        (b"{'prompt': 'a'}", "not JSON: "),
        (b'{"prompt": "a", "n": 01}', "not JSON: "),
        (b'{"prompt": "a", "n": NaN}', "not JSON: NaN and Infinity are no JSON numbers"),
        (b'{"prompt": "a", "n": -Infinity}', "not JSON: NaN and Infinity are no JSON numbers"),
        (b'{"prompt": "a", "n": 1e999}', "not acceptable JSON: a number that no float can hold"),
        (b'{"prompt": "a", "n": [-1e999]}', "not acceptable JSON: a number that no float"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not acceptable JSON: an integer of 5,000 digits"),
        (b'{"prompt": "a", "prompt": "a"}', "not acceptable JSON: a key occurs twice"),
        (b'{"prompt": "a", "\\u0070rompt": "b"}', "not acceptable JSON: a key occurs twice"),
        (b'{"prompt": "a", "x": [{"a": 1, "a": 1}]}', "not acceptable JSON: a key occurs twice"),
        (b"[" * 1000 + b"]" * 1000, "not acceptable JSON: nested deeper than 64"),
        (b"[" * 100_000, "not acceptable JSON: nested deeper than 64"),
        (b'{"a":' * 100_000, "not acceptable JSON: nested deeper than 64"),
        (b'["prompt"]', "not a JSON object"),
        (b'"prompt"', "not a JSON object"),
        (b"17", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "there is no field 'prompt'"),
        (b'{"prompt": null}', "the prompt is null, not a string"),
        (b'{"prompt": 17}', "the prompt is an integer, not a string"),
        (b'{"prompt": 1.5}', "the prompt is a number, not a string"),
        (b'{"prompt": true}', "the prompt is a boolean, not a string"),
        (b'{"prompt": ["a"]}', "the prompt is an array, not a string"),
        (b'{"prompt": {"a": 1}}', "the prompt is an object, not a string"),
        (b'{"prompt": ""}', "the prompt is empty or nothing but white space"),
        (b'{"prompt": " \\n\\u2003"}', "the prompt is empty or nothing but white space"),
        (b'{"prompt": "a\\ud800"}', "the prompt holds a lone surrogate at character 2"),
        (b'{"prompt": "\\udc00\\ud800"}', "the prompt holds a lone surrogate at character 1"),
        (b'{"prompt": "a", "response": ""}', "the response is empty: there is nothing to score"),
        (b'{"prompt": "a", "response": 5}', "the response is an integer, not a string"),
        (b'{"prompt": "a", "response": "\\ud800"}', "the response holds a lone surrogate"),
        (b'{"prompt": "a", "id": ""}', "the id is empty"),
        (b'{"prompt": "a", "id": 1.0}', "the id is a number, not a string or an integer"),
        (b'{"prompt": "a", "id": true}', "the id is a boolean, not a string or an integer"),
        (b'{"prompt": "a", "id": ["x"]}', "the id is an array, not a string or an integer"),
        (b'{"prompt": "a", "id": "x\\ny"}', "the id holds a control character"),
        (b'{"prompt": "a", "id": "\\u009b"}', "the id holds a control character"),
        (b'{"prompt": "a", "id": "\\udfff"}', "the id holds a lone surrogate at character 1"),
        (b'{"prompt": "a", "group": 0.5}', "the group is a number, not a string or an integer"),
        (b'{"prompt": "a", "label": 0.5}', "the label is a number, not a string, an integer"),
        (b'{"prompt": "a", "label": "\\ud9ff"}', "the label holds a lone surrogate"),
        (b'{"prompt": "\xff"}', "not valid UTF-8 at byte 13: invalid start byte"),
        (b'{"prompt": "\xc0\x80"}', "not valid UTF-8 at byte 13: invalid start byte"),
        (b'{"prompt": "\xe2\x82"}', "not valid UTF-8 at byte 13: invalid continuation byte"),
    ],
)
def test_a_bad_line_is_refused_and_the_others_go_on(read: Read, bad: bytes, reason: str) -> None:
    begun = time.process_time()
    items = read(line(prompt="before") + bad + b"\n" + line(prompt="after"), NAME)
    assert seen(items) == [(1, "before"), (2, "!InvalidInput"), (3, "after")]
    assert reasons(items)[0].startswith(reason)
    assert time.process_time() - begun < 5


def test_lengths(read: Read) -> None:
    data = (
        line(prompt="p" * 11)
        + line(prompt="p", response="r" * 11)
        + line(prompt="p", label="l" * 11)
        + line(prompt="p", id="i" * 257)
        + line(prompt="p", group="g" * 257)
        + line(prompt="p", x="x" * 100_000)
        + line(prompt="p" * 10, response="r" * 10, label="l" * 10, id="i" * 256, group="g" * 256)
    )
    items = read(data, NAME, max_chars=10)
    assert seen(items) == [
        (1, "!PromptTooLong"),
        *((at, "!InvalidInput") for at in (2, 3, 4, 5)),
        (6, "!PromptTooLong"),
        (7, "p" * 10),
    ]


def test_the_longest_prompt_and_response_fit_however_they_are_escaped(read: Read) -> None:
    text = "\U0001f600" * 50_000
    case = only(read(line(prompt=text, response=text), NAME, max_chars=50_000))
    assert case.text == case.response == text


def test_integers_as_ids_are_exact(read: Read) -> None:
    data = b"".join(
        b'{"prompt": "a", "id": ' + number + b"}\n"
        for number in (b"9007199254740993", b"-5", b"9007199254740992", b"-0")
    )
    ids = [item.id for item in read(data, NAME) if isinstance(item, PromptCase)]
    assert ids == ["9007199254740993", "-5", "9007199254740992", "0"]


def test_brackets_in_strings_do_not_nest() -> None:
    text = r"\"[{" * 100
    assert parse_object(json.dumps({"a": text, "b": [[]] * 70}))["a"] == text


def test_depth_limit_is_exact() -> None:
    assert parse_object('{"a":' + "[" * 63 + "]" * 63 + "}")
    with pytest.raises(InvalidInput, match="deeper than 64"):
        parse_object('{"a":' + "[" * 64 + "]" * 64 + "}")


def test_many_keys_and_hostile_quotes_take_linear_time(read: Read) -> None:
    def took_s(count: int) -> float:
        pairs = b",".join(b'"k%d":[]' % at for at in range(count))
        keys = b"{" + pairs + b', "prompt": "a"}\n'
        quotes = b"{" + b'[\\"' * count + b"\n"
        gc.disable()  # it would look through everything that other tests left, again and again
        try:
            begun = time.process_time()
            items = read(keys + quotes + line(prompt="after"), NAME, max_chars=1_000_000)
            took = time.process_time() - begun
        finally:
            gc.enable()
        assert seen(items) == [(1, "a"), (2, "!InvalidInput"), (3, "after")]
        return took

    # Whatever the machine: eight times the keys take eight times as long, and not sixty-four. The
    # middle of three, since other processes have the processor's caches now and then.
    small, large = (sorted(took_s(count) for _ in range(3))[1] for count in (50_000, 400_000))
    assert large < 24 * small


def test_a_million_keys_are_over_the_default_limit(read: Read) -> None:
    keys = b"{" + b",".join(b'"k%d":1' % at for at in range(1_000_000)) + b"}\n"
    assert seen(read(keys + line(prompt="after"), NAME)) == [(1, "!PromptTooLong"), (2, "after")]


def test_reasons_do_not_repeat_the_input(read: Read) -> None:
    planted = b"sk-planted-4711"
    bad = [
        b'{"prompt": "%s' % planted,
        b'{"%s": 1, "%s": 2}' % (planted, planted),
        b"%s" % planted,
        b'{"prompt": "a", "id": "%s\\n"}' % planted,
        b'{"prompt": "\\q%s"}' % planted,
    ]
    items = read(b"\n".join(bad), NAME)
    assert len(items) == len(reasons(items)) == len(bad)
    assert "planted" not in " ".join(reasons(items))
