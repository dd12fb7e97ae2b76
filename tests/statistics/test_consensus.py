"""Agreement by hand, by counting pairs, and crossed with correctness."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cert.statistics import (
    TaskAnswers,
    compare_debate,
    measure_task,
    nominal_alpha,
    summarize_consensus,
)

LABELS = st.lists(st.one_of(st.none(), st.sampled_from("abc")), max_size=8)


@pytest.mark.parametrize(
    ("labels", "agreement", "share", "plurality", "entropy"),
    [
        ([], None, None, None, None),
        ([None, None], None, None, None, None),
        (["a"], None, 1.0, "a", 0.0),
        (["a", None], None, 1.0, "a", 0.0),
        (["a", "a"], 1.0, 1.0, "a", 0.0),
        (["a", "b"], 0.0, 0.5, None, math.log(2)),
        (["a", "b", "c"], 0.0, 1 / 3, None, math.log(3)),
        (["b", "a", "a", None], 1 / 3, 2 / 3, "a", 0.6365141682948128),
        (["a", "a", "b", "b"], 1 / 3, 0.5, None, math.log(2)),
    ],
)
def test_one_task_by_hand(
    labels: list[str | None],
    agreement: float | None,
    share: float | None,
    plurality: str | None,
    entropy: float | None,
) -> None:
    found = measure_task(labels)
    assert found.agreement == pytest.approx(agreement)
    assert found.plurality_share == pytest.approx(share)
    assert found.plurality == plurality
    assert found.entropy_nats == pytest.approx(entropy)
    assert found.answered + found.unanswered == len(labels)


@given(labels=LABELS)
def test_agreement_is_the_share_of_pairs_that_say_the_same(labels: list[str | None]) -> None:
    given_labels = [label for label in labels if label is not None]
    found = measure_task(labels)
    pairs = [x == y for x, y in permutations(given_labels, 2)]
    assert found.agreement == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    if given_labels:
        counts = [given_labels.count(label) for label in set(given_labels)]
        assert found.entropy_nats == pytest.approx(stats.entropy(counts), abs=1e-12)
        assert found.plurality_share == max(counts) / len(given_labels)
    assert found == measure_task([*reversed(labels)])


RIGHT, WRONG = True, False
TASKS = [
    TaskAnswers(("a", "a", "a"), (RIGHT, RIGHT, None)),  # unanimous, right
    TaskAnswers(("b", "b", None), (WRONG, WRONG, None)),  # unanimous, wrong
    TaskAnswers(("a", "a", "b"), (RIGHT, RIGHT, WRONG)),  # split, right
    TaskAnswers(("a", "b", "b"), (RIGHT, WRONG, WRONG)),  # split, wrong
    TaskAnswers(("a", "b", None), (RIGHT, WRONG, None)),  # tied
    TaskAnswers(("a", "a", "b"), (None, None, RIGHT)),  # nobody judged the plurality
    TaskAnswers(("a", "a", "b"), (RIGHT, WRONG, WRONG)),  # judged differently
    TaskAnswers(("a", None, None), (RIGHT, None, None)),  # too few
]


def test_agreement_is_crossed_with_correctness() -> None:
    found = summarize_consensus(TASKS)
    counts = (found.unanimous_right, found.unanimous_wrong, found.split_right, found.split_wrong)
    assert counts == (1, 1, 1, 1)
    assert (found.tied, found.unjudged, found.too_few, found.tasks) == (1, 2, 1, 8)
    assert found.agreement == pytest.approx((1 + 1 + 1 / 3 + 1 / 3 + 0 + 1 / 3 + 1 / 3) / 7)
    assert found.agreement_where_right == pytest.approx((1 + 1 / 3) / 2)
    assert found.agreement_where_wrong == pytest.approx((1 + 1 / 3) / 2)
    assert found.plurality_share == pytest.approx((1 + 1 + 4 * 2 / 3 + 0.5 + 1) / 8)
    fields = asdict(found)
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_no_tasks_are_no_agreement() -> None:
    found = summarize_consensus([])
    assert (found.tasks, found.agreement, found.entropy_nats) == (0, None, None)
    assert (found.agreement_where_right, found.plurality_share) == (None, None)


def test_flips_of_a_debate() -> None:
    before = [
        TaskAnswers(("a", "b", "b"), (RIGHT, WRONG, WRONG)),
        TaskAnswers(("a", "a", None), (RIGHT, RIGHT, None)),
        TaskAnswers(("c", "d", "a"), (WRONG, WRONG, None)),
    ]
    after = [
        TaskAnswers(("b", "b", "a"), (WRONG, WRONG, RIGHT)),
        TaskAnswers(("a", None, "a"), (RIGHT, RIGHT, RIGHT)),  # no answer, so no judgement
        TaskAnswers(("d", "d", "a"), (WRONG, WRONG, RIGHT)),
    ]
    found = compare_debate(before, after)
    flips = found.flips
    assert (flips.right_to_wrong, flips.wrong_to_right) == (1, 1)
    assert (flips.stayed_right, flips.stayed_wrong, flips.unjudged) == (1, 3, 3)
    assert (flips.changed, flips.compared) == (3, 7)
    assert (found.before.tied, found.after.tied) == (1, 0)
    assert found.before == summarize_consensus(before)
    assert found.after == summarize_consensus(after)


def test_a_debate_is_between_the_same_agents() -> None:
    one, two = TaskAnswers(("a",), (True,)), TaskAnswers(("a", "b"), (True, False))
    for before, after in (([one], [two]), ([one], [one, one])):
        with pytest.raises(ValueError, match="other tasks or other agents"):
            compare_debate(before, after)


def test_judgements_without_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 judgements for 1 answers"):
        TaskAnswers(("a",), (True, False))


def units(*observers: str) -> list[list[str | None]]:
    """One string an observer, a character a unit, a dot where it is missing."""
    return [[None if c == "." else c for c in column] for column in zip(*observers, strict=True)]


@pytest.mark.parametrize(
    ("observers", "alpha", "places"),
    [
        # Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011: examples A, B and C.
        (("0100000010", "1110010000"), 0.095, 3),
        (("aabbdcccedda", "babbbccceddd"), 0.692, 3),
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743, 3),
        # The example of Wikipedia's article: three coders, fifteen units.
        (
            (".....34121133.3", "1.213343.......", "..21344.21133.4"),
            0.691,
            3,
        ),
    ],
)
def test_alpha_of_worked_examples(observers: tuple[str, ...], alpha: float, places: int) -> None:
    found = nominal_alpha(units(*observers))
    assert found.alpha is not None
    assert round(found.alpha, places) == alpha


def test_alpha_counts_what_can_be_paired() -> None:
    found = nominal_alpha(units("123321412...", "1233224125.3", ".3332342251.", "12332441251."))
    assert (found.units, found.values, found.labels) == (11, 40, 5)


def independent_alpha(rows: list[list[str | None]]) -> float | None:
    """By coincidence matrix, pair by pair."""
    matrix: dict[tuple[str, str], float] = {}
    for row in rows:
        known = [label for label in row if label is not None]
        for pair in permutations(known, 2):
            matrix[pair] = matrix.get(pair, 0.0) + 1.0 / (len(known) - 1)
    totals: dict[str, float] = {}
    for (label, _), weight in matrix.items():
        totals[label] = totals.get(label, 0.0) + weight
    n = sum(totals.values())
    observed = sum(weight for (one, other), weight in matrix.items() if one != other)
    expected = sum(a * b for x, a in totals.items() for y, b in totals.items() if x != y)
    return 1.0 - (n - 1) * observed / expected if expected else None


@given(rows=st.lists(LABELS, max_size=8))
def test_alpha_against_its_coincidence_matrix(rows: list[list[str | None]]) -> None:
    found = nominal_alpha(rows)
    assert found.alpha == pytest.approx(independent_alpha(rows), abs=1e-9)
    assert found == nominal_alpha([list(reversed(row)) for row in reversed(rows)]) or (
        found.alpha == pytest.approx(nominal_alpha([*reversed(rows)]).alpha, abs=1e-12)
    )


@pytest.mark.parametrize("rows", [[], [["a"], ["b"]], [["a", "a"], ["a", "a"]], [[None, None]]])
def test_alpha_without_two_labels_that_pair_is_none(rows: list[list[str | None]]) -> None:
    assert nominal_alpha(rows).alpha is None


def test_perfect_agreement_is_one_and_systematic_disagreement_below_zero() -> None:
    assert nominal_alpha(units("abcab", "abcab")).alpha == 1.0
    opposed = nominal_alpha(units("abab", "baba")).alpha
    assert opposed is not None
    assert opposed == pytest.approx(-0.75)
