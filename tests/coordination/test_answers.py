from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.coordination.answers import (
    Found,
    extract_answer,
    find_object,
    normalise_label,
    normalise_number,
    normalise_object,
    normalise_text,
)
from cert.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("reply", "answer", "found"),
    [
        ("12", "12", Found.WHOLE),
        ("So.\nANSWER: 12", "12", Found.MARKER),
        ("ANSWER: 1\nNo, wait.\nANSWER: 2", "2", Found.MARKER),
        ("**Answer:** 12", "12", Found.MARKER),
        ("> Final answer: `Lisbon`", "Lisbon", Found.MARKER),
        ("Answer\uff1a 12", "12", Found.MARKER),
        ("ANSWER:\n\n12", "12", Found.MARKER),
        ("ANSWER: $\\boxed{12}$", "12", Found.MARKER),
        ("Thus \\boxed{3} or \\boxed{4}.", "4", Found.BOXED),
        ("Thus \\boxed{ } and", "Thus \\boxed{ } and", Found.WHOLE),
        ("The answer is clear: 12", "The answer is clear: 12", Found.WHOLE),
    ],
)
def test_the_final_answer_is_found(reply: str, answer: str, found: Found) -> None:
    final = extract_answer(reply)
    assert final is not None
    assert (final.text, final.found) == (answer, found)


@pytest.mark.parametrize("reply", ["", " \n\t", "Well.\nANSWER:", "ANSWER: \\boxed{}"])
def test_no_answer_is_none(reply: str) -> None:
    found = extract_answer(reply)
    assert found is None or found.text == "\\boxed{}"


def test_an_object_after_the_marker_may_take_several_lines() -> None:
    final = extract_answer('Here.\nANSWER: {\n  "a": 1\n}')
    assert final is not None
    assert find_object(final.tail) == {"a": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lisbon", "lisbon."),
        ("\u201cLisbon\u201d", "LISBON"),
        ("a\u00a0 b", "a b"),
        ("\uff21", "a"),
        ("stra\u00dfe", "STRASSE"),
        ("e\u0301", "\u00e9"),
        ('"yes".', "yes"),
        ("**yes**", "yes"),
    ],
)
def test_spellings_of_the_same_are_the_same(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other)


def test_case_can_be_kept() -> None:
    assert normalise_text("ERES", fold_case=False) == "ERES"
    assert normalise_text("ERES", fold_case=False) != normalise_text("eres", fold_case=False)


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    for fold_case in (True, False):
        once = normalise_text(text, fold_case=fold_case)
        assert normalise_text(once, fold_case=fold_case) == once


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_composition_does_not_matter(text: str) -> None:
    forms = {normalise_text(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert len(forms) == 1


def test_labels_have_spellings() -> None:
    labels = {"Yes": ("y", "true"), "No": ("n",)}
    assert normalise_label("TRUE.", labels, fold_case=True) == "yes"
    assert normalise_label("yes", labels, fold_case=True) == "yes"
    assert normalise_label("N", labels, fold_case=False) == "N"
    assert normalise_label("Maybe", labels, fold_case=True) == "maybe"


def test_numbers_agree_across_units() -> None:
    assert normalise_number("1.5 km", "m") == normalise_number("1500", "m") == "1500"
    assert normalise_number("50 %", None) == "50"
    assert normalise_number("1.5 kg", "m") is None
    assert normalise_number("many", "m") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure: {"a": {"b": 2}}!', {"a": {"b": 2}}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}\n```\nor\n```\n{"a": 2}\n```', {"a": 2}),
    ],
)
def test_an_object_is_found(text: str, value: dict[str, object]) -> None:
    assert find_object(text) == value
    assert normalise_object(text) is not None


@pytest.mark.parametrize(
    "text",
    ["", "none", "}{", "[1]", '{"a": NaN}', '{"a": 1, "a": 2}', "{" * 100 + "}" * 100, "```\n```"],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        find_object(text)
    assert normalise_object(text) is None


def test_objects_agree_whatever_their_order() -> None:
    assert normalise_object('{"b": 1, "a": 2}') == normalise_object('{ "a":2,"b":1 }')


@pytest.mark.parametrize(
    "text",
    [
        '."' * 500_000,
        "```" * 300_000,
        "answer:" * 150_000,
        "\\boxed{" * 150_000,
        "*" * 1_000_000,
        "\n> ANSWER: " * 90_000,
        "{" * 1_000_000,
    ],
    ids=["marks", "fences", "words", "boxes", "stars", "markers", "braces"],
)
def test_a_hostile_reply_costs_linear_time(text: str) -> None:
    began = time.process_time()
    final = extract_answer(text)
    if final is not None:
        normalise_text(final.text)
        normalise_object(final.tail)
    # A quadratic step takes minutes at this length.
    assert time.process_time() - began < 10
