"""Canonical JSON against RFC 8785's own vectors and against `rfc8785`, and what is refused."""

from __future__ import annotations

import enum
import json
import math
import struct
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cert.ledger.canonical import CanonicalError, canonical_bytes, parse_canonical

# RFC 8785, appendix B: the bits of a double and its form.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


def double(bits: str) -> float:
    number: float = struct.unpack(">d", bytes.fromhex(bits))[0]
    return number


@pytest.mark.parametrize(("bits", "form"), NUMBERS)
def test_numbers_of_rfc_8785_appendix_b(bits: str, form: str) -> None:
    number = double(bits)
    assert canonical_bytes(number) == form.encode()
    # In a list of numbers, a mixed list and an object, which take ways of their own.
    assert canonical_bytes([0.5, number]) == f"[0.5,{form}]".encode()
    assert canonical_bytes(["", number]) == f'["",{form}]'.encode()
    assert canonical_bytes({"n": number}) == f'{{"n":{form}}}'.encode()
    assert canonical_bytes({"n": [number]}) == f'{{"n":[{form}]}}'.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_nan_and_infinity_are_refused_as_in_appendix_b(bits: str) -> None:
    for value in (double(bits), [0.5, double(bits)], ["", double(bits)], {"n": [[double(bits)]]}):
        with pytest.raises(CanonicalError, match="not representable"):
            canonical_bytes(value)


def test_the_example_of_rfc_8785_section_3_2_2() -> None:
    given_text = (
        '{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        r'"string": "\u20ac$\u000F\u000aA' + "'" + r'\u0042\u0022\u005c\\\"\/",'
        '"literals": [null, true, false]}'
    )
    want = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA' + "'" + 'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_bytes(json.loads(given_text)) == want.encode()


def test_keys_sort_by_utf_16_code_units_as_in_section_3_2_3() -> None:
    given_object = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    values = list(json.loads(canonical_bytes(given_object)).values())
    assert values == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]
    nested = {"a": [given_object | {"n": 1.0}]}
    assert canonical_bytes(nested) == rfc8785.dumps(nested)


keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(
    ["a", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
)
floats = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-40, 0, width=32)
    | st.floats(0, 2e-5)
    | st.integers(-(2**60), 2**60).map(float)
    | st.sampled_from([-0.0, 1e-6, 1e-5, 1e15, 1e16, 1e20, 1e21, 1e22, 9.999999999999999e14])
)
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "1.0,",
        "[1.0]",
        "\\",
        '\\\\"1.0,',
        '\\"',
        '"',
        "2e-6,",
        "e-",
        "null",
        '\x7f\x00\x1f\u2028"\\/',
    ]
)
safe_integers = st.integers(-(2**53) + 1, 2**53 - 1)
leaves = st.none() | st.booleans() | safe_integers | floats | texts
values = st.recursive(
    leaves | st.lists(floats | safe_integers),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=300)
@given(values)
@example([1e15, 2.0])
@example([[-0.0], "1.0,"])
@example({"\U00010000": 1, "\uffff": [1e-6]})
@example({'\\"': '1.0,\\\\"', '"': [1.0, '"2.0,"', -0.0, 5e-6, -1.5e-6, 1e-60, 5e-5, 1e-7]})
@example([10.0, -10.0, 100.05, -0.05, '\\\\\\"0.0,"'])
@example([2**53 - 1, -(2**53) + 1, 0.5])
def test_the_bytes_are_those_of_rfc8785(value: object) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


def as_read(value: object) -> object:
    """What a JCS reader sees: tuples are lists, and integral doubles within 2^53 are integers."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list | tuple):
        return [as_read(one) for one in value]
    if isinstance(value, dict):
        return {key: as_read(one) for key, one in value.items()}
    return value


@settings(max_examples=150)
@given(st.dictionaries(keys, values, max_size=4))
@example({"p": 1e16})
@example({"p": [2.0**53, -(2.0**63), 1e20]})
def test_whatever_was_written_is_read_back(value: dict[str, object]) -> None:
    line = canonical_bytes(value)
    again = parse_canonical(line)
    assert again == as_read(value)
    assert canonical_bytes(again) == line


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**64, 10**400])
def test_integers_beyond_2_to_the_53_are_refused(number: int) -> None:
    for value in (number, [number], [0.5, number], ["", number], {"n": number}, [number, 1.0]):
        with pytest.raises(CanonicalError):
            canonical_bytes(value)
    assert canonical_bytes([2**53 - 1, -(2**53) + 1]) == b"[9007199254740991,-9007199254740991]"


class Colour(enum.StrEnum):
    RED = "red"


class Text(str):
    __slots__ = ()


@dataclass
class Point:
    x: int = 1


@pytest.mark.parametrize(
    "other",
    [
        Colour.RED,
        Text("a"),
        Point(),
        datetime(2026, 1, 1, tzinfo=UTC),
        uuid.UUID(int=1),
        np.float64(0.5),
        np.float32(0.5),
        np.arange(3),
        orjson.Fragment(b"x"),
        b"a",
        {1, 2},
        1j,
        object(),
    ],
)
def test_other_types_are_refused_everywhere(other: object) -> None:
    for value in (other, [other], [0.5, other], ("", other), {"k": other}, [1.0, [other]]):
        with pytest.raises(CanonicalError):
            canonical_bytes(value)


@pytest.mark.parametrize("key", [1, None, 1.5, True, ("a",), Text("a"), b"a"])
def test_keys_that_are_no_str_are_refused(key: object) -> None:
    for value in ({key: 1}, [{key: 1.0}], {"\U00010000": {key: 1}}, {key: 1e16}):
        with pytest.raises(CanonicalError):
            canonical_bytes(value)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800"])
def test_lone_surrogates_are_refused(text: str) -> None:
    for value in (text, {text: 1}, {"k": text}, [1.0, text], {"\U00010000": text}):
        with pytest.raises(CanonicalError):
            canonical_bytes(value)


def nested(depth: int, kind: str) -> object:
    value: object = 1.0
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_depth(kind: str) -> None:
    assert canonical_bytes(nested(64, kind)) == rfc8785.dumps(nested(64, kind))  # type: ignore[arg-type]
    with pytest.raises(CanonicalError, match="deeper than 64"):
        canonical_bytes(nested(65, kind))
    with pytest.raises(CanonicalError, match="deeper than 64"):
        canonical_bytes([0.5, nested(100_000, "list")])


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(CanonicalError, match="deeper than 64"):
        canonical_bytes(value)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":1, "b":2}',
        b' {"a":1}',
        b'{"a":1}\n',
        b'{"a":1}\r',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":1}',
        b'{"\\u0061":1}',
        b'{"a":"\\/"}',
        b'{"a":"\\u000A"}',
        b'{"a":"\\u001F"}',
        b'{"a":"\\u00e9"}',
        b'{"a":1.0}',
        b'{"a":42e0}',
        b'{"a":1E2}',
        b'{"a":-0}',
        b'{"a":-0.0}',
        b'{"a":1e-6}',
        b'{"a":1e+16}',
        b'{"a":0.10}',
        b'{"a":0.1000000000000000055}',
        b'{"a":9007199254740993}',
        b'{"a":-9007199254740993}',
        b'{"a":18446744073709551615}',
        b'{"a":18446744073709551616}',
        b'{"a":100000000000000000001}',
        b'{"\xef\xbf\xbf":2,"\xf0\x90\x80\x80":1}',
    ],
)
def test_other_spellings_of_a_value_are_refused_and_located(line: bytes) -> None:
    with pytest.raises(CanonicalError, match="not in canonical form from byte"):
        parse_canonical(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b'{"a":1} {}',
        b'{"a":1}{}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":012}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xff"}',
        b'{"a":"\xc0\x80"}',
        b'{"a":"\x00"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"' + b"1" * 5000,
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000,
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_is_refused(line: bytes) -> None:
    with pytest.raises(CanonicalError, match="not JSON"):
        parse_canonical(line)


@pytest.mark.parametrize("line", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_only_an_object_is_a_record(line: bytes) -> None:
    with pytest.raises(CanonicalError, match="expected an object"):
        parse_canonical(line)


@pytest.mark.parametrize("depth", [64, 200, 1000])
def test_deep_lines_are_refused(depth: int) -> None:
    line = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(CanonicalError, match="deeper than 64"):
        parse_canonical(line)
    assert parse_canonical(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}")


def test_the_place_of_the_difference_is_said() -> None:
    with pytest.raises(CanonicalError, match=r"from byte 7: expected b'}', found b'\.0}'"):
        parse_canonical(b'{"aa":1.0}')
    with pytest.raises(CanonicalError, match=r"from byte 7: expected b'', found b'\\n'"):
        parse_canonical(b'{"a":1}\n')


def test_large_doubles_are_read_as_doubles() -> None:
    got = parse_canonical(b'{"a":[10000000000000000,9007199254740992,18446744073709552000]}')
    assert got == {"a": [1e16, 2.0**53, 2.0**64]}
    assert all(type(one) is float for one in got["a"])  # type: ignore[attr-defined]
    assert type(parse_canonical(b'{"a":9007199254740991}')["a"]) is int
    assert math.isclose(got["a"][0], 1e16)  # type: ignore[index]
