from __future__ import annotations

import pytest

from cert.core.errors import ConfigurationError
from cert.core.strict_yaml import MAX_ALIASES, MAX_BYTES, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a comment\n", None),
        ("a: 1", {"a": 1}),
        ("a: no", {"a": "no"}),
        ("a: on", {"a": "on"}),
        ("a: 'true'", {"a": "true"}),
        ("a: True", {"a": True}),
        ("a: false", {"a": False}),
        ("a: 012", {"a": 12}),
        ("a: 0o17", {"a": 15}),
        ("a: 0x1F", {"a": 31}),
        ("a: -3", {"a": -3}),
        ("a: +3", {"a": 3}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: -.5", {"a": -0.5}),
        ("a: 1.", {"a": 1.0}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 0b1", {"a": "0b1"}),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("a: ''", {"a": ""}),
        ("a: [1, 'x', [2]]", {"a": [1, "x", [2]]}),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("a: &x {k: v}\nb: *x", {"a": {"k": "v"}, "b": {"k": "v"}}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("ключ: значение", {"ключ": "значение"}),
        ("just text", "just text"),
    ],
)
def test_known_answers(text: str, value: object) -> None:
    parsed = parse_yaml(text.encode(), source="s")
    assert parsed == value
    assert repr(parsed) == repr(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\nb: 2\na: 3", "s line 3: the key 'a' stands twice"),
        (b"x: !!python/object/apply:os.system [id]", "s line 1: tags are not allowed"),
        (b"x: !!str 1", "s line 1: tags are not allowed"),
        (b"x: !own 1", "s line 1: tags are not allowed"),
        (b"x: !!binary aGk=", "s line 1: tags are not allowed"),
        (b"a: 1\n---\nb: 2", "another document"),
        (b"a: &a [*a]", "s line 1: nested deeper than 32"),
        (b"[" * 40, "s line 1: nested deeper than 32"),
        (b"a: .inf", "s line 1: .inf is not a finite number"),
        (b"a: -.Inf", "s line 1: -.Inf is not a finite number"),
        (b"a: .NaN", "s line 1: .NaN is not a finite number"),
        (b"a: 1e999", "s line 1: 1e999 is not a finite number"),
        (b"a: " + b"9" * 5000, "s line 1: an integer of too many digits"),
        (b"1: x", "s line 1: a key is a text, got int"),
        (b"? [a]\n: x", "s line 1: a key is a text, got list"),
        (b"a: [1", "s line 1"),
        (b"a: *b", "s line 1: found undefined alias 'b'"),
        (b"\xff\xfea\x00", "s: not UTF-8 at byte 0"),
        (b"a: caf\xe9", "s: not UTF-8 at byte 6"),
        (b"a: \x1b[2J", r"s: unacceptable character #x001b"),
        (b"a: \x00", "s: unacceptable character #x0000"),
        (b"a: " + b"x" * MAX_BYTES, f"s: larger than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_yaml(data, source="s")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


def test_aliases_are_limited_in_number_and_in_what_they_expand_to() -> None:
    many = b"a: &a 1\nb: [" + b"*a, " * (MAX_ALIASES + 1) + b"]"
    with pytest.raises(ConfigurationError, match=f"more than {MAX_ALIASES} aliases"):
        parse_yaml(many, source="s")
    laughs = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 5)) for n in range(1, 7)]
    with pytest.raises(ConfigurationError, match="more than 20000 values"):
        parse_yaml(b"\n".join(laughs), source="s")


def test_a_long_flat_document_is_parsed_in_time() -> None:
    text = "\n".join(f"key_{n}: {n}" for n in range(5000))
    parsed = parse_yaml(text.encode(), source="s")
    assert isinstance(parsed, dict)
    assert len(parsed) == 5000
