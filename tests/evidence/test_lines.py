"""The fast reader of lines accepts exactly what `parse_canonical` accepts."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.evidence.lines import parse_line
from cert.ledger.canonical import CanonicalError, canonical_bytes, parse_canonical


def read(function: Any, line: bytes) -> str:  # noqa: ANN401 - either of the two
    try:
        value = function(line)
    except CanonicalError as error:
        return error.message
    return repr(value)  # tells 1 from 1.0 and from True, and -0.0 from 0.0


SPELLINGS = [
    *("1", "1.0", "0", "-0", "0.0", "-0.0", "-1.0", "10.0", "1.50", "01", "+1", ".5", "1."),
    *("1e15", "1e+15", "1000000000000000", "1000000000000000.0", "1234567890123456.5"),
    *("1e16", "1e+16", "10000000000000000", "1e20", "100000000000000000000", "1e21", "1e+21"),
    *("1E21", "1.5e+21", "1.5e21", "1e300", "1e+300", "1e400", "-1e400", "5e-324", "1e-400"),
    *("1e-5", "0.00001", "1e-6", "0.000001", "0.0000015", "1.5e-6", "1e-7", "0.0000001", "1e-57"),
    *("9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993"),
    *("18446744073709551615", "18446744073709551616", "123456789012345678901234567890"),
    *("0.1", "0.10000000000000001", "0.30000000000000004", "4.35", "2.5e-8", "NaN", "Infinity"),
    *("true", "null", "[]", "{}", "[1,2]", "[1, 2]", '{"b":1,"a":2}', '{"a":1,"a":1}'),
    *('"e+"', '"x.0,"', '"1e-5,"', '"\\"1.0,"', '"a\\\\",1.0', '"\\/"', '"\\u0041"', '"\\u001f"'),
    *('"\\u001F"', '"\\b"', '"\\u0008"', '"\\ud800"', '"\\ud83d\\ude00"', '"\u007f"', '"\u2028"'),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_values(spelling: str) -> None:
    for form in ('{"a":%s}', '{"a":[%s,2.5]}', '{"a":[2.5,%s]}', '{"a":{"b":%s},"c":"x"}'):
        line = (form % spelling).encode()
        assert read(parse_line, line) == read(parse_canonical, line), line


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"{}",
        b"{} ",
        b"{}\n",
        b"[]",
        b"1",
        b"null",
        b'{"a":1',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\x00"}',
        '{"\U0001f600":1,"\ue000":2}'.encode(),
        '{"\ue000":2,"\U0001f600":1}'.encode(),
        '{"a":"\U0001f600"}'.encode(),
        '{"a":"\u00e4"}'.encode(),
    ],
)
def test_lines(line: bytes) -> None:
    assert read(parse_line, line) == read(parse_canonical, line)


@pytest.mark.parametrize("depth", [1, 63, 64, 65, 200, 2000])
@pytest.mark.parametrize("pair", [(b'{"a":', b"}"), (b"[", b"]")])
def test_depth(depth: int, pair: tuple[bytes, bytes]) -> None:
    opening, closing = pair
    line = b'{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"
    assert read(parse_line, line) == read(parse_canonical, line)
    assert read(parse_line, line).startswith("{") is (depth <= 64)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1e-4, 1e-4)
    | st.integers(-5, 5).map(float)
    | st.text(max_size=6)
    | st.sampled_from(["1.0,", "e-5]", "e+", '"', "\\", "1.0", '\\"1.0,']),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=3), values, max_size=5)


@settings(max_examples=300, deadline=None)
@given(objects)
def test_canonical_lines_are_accepted(value: dict[str, Any]) -> None:
    try:
        line = canonical_bytes(value)
    except CanonicalError:
        return
    assert read(parse_line, line) == read(parse_canonical, line)
    assert parse_line(line) == value


@settings(max_examples=300, deadline=None)
@given(objects)
def test_lines_of_other_writers(value: dict[str, Any]) -> None:
    lines = [
        json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False),
        json.dumps(value, separators=(",", ":"), sort_keys=True),
        json.dumps(value),
    ]
    encoded = [line.encode("utf-8", "surrogatepass") for line in lines]
    for option in (orjson.OPT_SORT_KEYS, 0):
        try:
            encoded.append(orjson.dumps(value, option=option))
        except TypeError:
            continue
    for line in encoded:
        assert read(parse_line, line) == read(parse_canonical, line)


@settings(max_examples=300, deadline=None)
@given(objects, st.data())
def test_changed_lines(value: dict[str, Any], data: st.DataObject) -> None:
    try:
        line = bytearray(canonical_bytes(value))
    except CanonicalError:
        return
    at = data.draw(st.integers(0, len(line)))
    line[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b" ", b"0", b".0", b"e", b"e-6", b"1", b"-", b"[", b"}", b"\xf0"])
    )
    assert read(parse_line, bytes(line)) == read(parse_canonical, bytes(line))
