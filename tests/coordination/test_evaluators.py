from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.coordination.evaluator import Candidate, Reason, Score, Unscored
from cert.coordination.evaluator_parameters import (
    Compared,
    Exact,
    Numeric,
    Object,
    Parameters,
    Pattern,
    TokenF1,
)
from cert.coordination.evaluators import MAX_ANSWER_CHARS, Computed, score_text, token_f1
from tests.coordination.helpers import task

YES = Exact(labels={"yes": ("true",)})
TEXT = Object({"properties": {"a": {"pattern": "."}}})
AGE = Object({"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}})


@pytest.mark.parametrize(
    ("evaluator", "expected", "answer", "value"),
    [
        (Exact(), ("Lisbon",), "lisbon.", 1.0),
        (Exact(), ("Lisbon",), "Lisbon, Portugal", 0.0),
        (Exact(), ("Lisbon", "Lisboa"), "LISBOA", 1.0),
        (Exact("keep"), ("Lisbon",), "lisbon", 0.0),
        (Exact(), ("\u00e9t\u00e9",), "e\u0301te\u0301", 1.0),
        (YES, ("yes",), "True", 1.0),
        (YES, ("yes",), "no", 0.0),
        (Numeric(), ("12",), "12.0", 1.0),
        (Numeric(), ("12",), "about 12 apples", 1.0),
        (Numeric(), ("12",), "12.01", 0.0),
        (Numeric(absolute=0.5), ("12",), "12.5", 1.0),
        (Numeric(absolute=0.5), ("12",), "12.51", 0.0),
        (Numeric(relative=0.1), ("-10",), "-11", 1.0),
        (Numeric(relative=0.1), ("-10",), "-11.1", 0.0),
        (Numeric(unit="m"), ("1500",), "1.5 km", 1.0),
        (Numeric(unit="m"), ("1.5 km",), "1500", 1.0),
        (Numeric(unit="m"), ("1500",), "1500 kg", 0.0),
        (Numeric(), ("12", "13"), "13", 1.0),
        (Numeric(), ("12",), "12 or 13", 0.0),
        (Numeric(), ("12",), "nan", 0.0),
        (TokenF1(), ("a b c d",), "a b", 2 / 3),
        (TokenF1(), ("a b", "c"), "c", 1.0),
        (TokenF1(), ("a",), "b", 0.0),
        (Pattern("a+"), (), "aaa", 1.0),
        (Pattern("a+"), (), "aab", 0.0),
        (Pattern("a|b"), (), "ab", 0.0),
        (Pattern("a+", whole=False), (), "xaay", 1.0),
        (Pattern("a+"), (), "aaa\n", 1.0),
        (Pattern("."), (), "\ud800", 1.0),
        (AGE, (), '{"age": 3}', 1.0),
        (AGE, (), '{"age": "3"}', 0.0),
        (AGE, (), "3", 0.0),
        (AGE, ('{"age": 3}',), '{"age": 3.0}', 1.0),
        (AGE, ('{"age": 3}',), '{"age": 4}', 0.0),
        (AGE, ('{"age": 1}',), '{"age": true}', 0.0),
        (Object({}), ('{"a": true}',), '{"a": 1}', 0.0),
        (Object({}), ('{"a": [1, {"b": null}]}',), '{"a": [1, {"b": null}]}', 1.0),
        (Object({}), ('{"a": [1]}',), '{"a": [1, 1]}', 0.0),
        (TEXT, (), '{"a": "x"}', 1.0),
        (TEXT, (), '{"a": "\\ud800"}', 0.0),
        (Object({}), (), "{" * 100, 0.0),
    ],
)
def test_answers_are_worth_what_they_are(
    evaluator: Parameters, expected: tuple[str, ...], answer: str, value: float
) -> None:
    one = task(evaluator=evaluator, expected=expected)
    for reply in (answer, f"Let me see.\nANSWER: {answer}"):
        assert score_text(one, reply).value == value


def test_a_reply_without_an_answer_is_worth_nothing() -> None:
    assert score_text(task(), "  ") == Score(0.0, {"why": "no answer"})
    assert score_text(task(), "1" * (MAX_ANSWER_CHARS + 1)).value == 0.0


def test_the_evidence_holds_the_answer_cut_short() -> None:
    score = score_text(task(evaluator=Exact(), expected=("x",)), "y" * 1000)
    assert score.evidence == {"answer": "y" * 300, "found": "whole", "why": "not as expected"}


def test_a_judges_task_is_not_computed() -> None:
    with pytest.raises(TypeError, match="judged by models"):
        score_text(task(evaluator=Compared("which?"), expected=("x",)), "y")


def test_a_pattern_that_backtracks_elsewhere_takes_linear_time() -> None:
    one = task(evaluator=Pattern("(a+)+b"), expected=())
    began = time.process_time()
    assert score_text(one, "a" * 500_000).value == 0.0
    assert time.process_time() - began < 10


def test_f1_by_hand() -> None:
    # 2 shared of 3 and of 4 words: precision 2/4, recall 2/3, F1 = 4/7.
    assert token_f1("the red house", "red house, a big") == pytest.approx(4 / 7)
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("...", "...") == 0.0


@given(st.text(), st.text())
def test_f1_is_symmetric_and_bounded(one: str, other: str) -> None:
    assert 0.0 <= token_f1(one, other) == token_f1(other, one) <= 1.0


@given(st.text(max_size=200))
def test_any_reply_has_a_score(text: str) -> None:
    for evaluator, expected in (
        (Exact(), ("x",)),
        (Numeric(unit="m"), ("3",)),
        (TokenF1(), ("x y",)),
        (Pattern("x"), ()),
        (AGE, ('{"age": 3}',)),
    ):
        assert 0.0 <= score_text(task(evaluator=evaluator, expected=expected), text).value <= 1.0


async def test_the_interface_makes_no_call() -> None:
    async def never(_request: object) -> None:
        raise AssertionError

    assert Computed().is_free
    outcome = await Computed().evaluate(task(1), Candidate("ANSWER: 2"), never)  # type: ignore[arg-type]
    assert isinstance(outcome, Score)
    assert outcome.value == 1.0


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_score_outside_of_its_range_is_none(value: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        Score(value)


def test_reasons_are_words_for_the_statistics() -> None:
    assert str(Unscored(Reason.REFUSAL)) == "refusal"
    assert str(Unscored(Reason.CALL_FAILED, "transient")) == "call_failed: transient"
