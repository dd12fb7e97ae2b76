"""The tasks of sample_prompts/tasks.jsonl: what can be recomputed is recomputed here."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from datetime import date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cert.coordination.evaluators import score_text
from cert.coordination.task_files import load_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from cert.coordination.tasks import Task

SAMPLES = Path(__file__).resolve().parents[2] / "sample_prompts" / "tasks.jsonl"
TASKS = {one.id: one for one in load_tasks([str(SAMPLES)]).tasks}


def words_by_length(text: str) -> list[str]:
    return sorted(text.split(), key=len)


def second_oldest() -> str:
    orders = [
        order
        for order in itertools.permutations(["Ada", "Ben", "Cem", "Dora"])
        if order.index("Ada") < order.index("Ben") < order.index("Cem")
        and order.index("Dora") < order.index("Ada")
    ]
    (order,) = orders
    return order[1]


def box_with_key() -> str:
    boxes = ("red", "blue", "green")
    (box,) = [box for box in boxes if [box != "red", box != "blue", box == "blue"].count(True) == 1]
    return box


def true_statement() -> int:
    found = []
    for truths in itertools.product([True, False], repeat=4):
        false = truths.count(False)
        if all(truth == (false == n) for n, truth in enumerate(truths, start=1)):
            found.append(truths.index(True) + 1)
    (number,) = found
    return number


def rain() -> str:
    worlds = [
        rain
        for rain, cancelled in itertools.product([True, False], repeat=2)
        if (not rain or cancelled) and not cancelled
    ]
    return "yes" if worlds == [True] else "no"


def glims() -> str:
    kinds = [
        (glim, tov, brask)
        for glim, tov, brask in itertools.product([True, False], repeat=3)
        if (not glim or tov) and not (tov and brask)
    ]
    return "yes" if any(glim and brask for glim, _, brask in kinds) else "no"


def months_of(days: int) -> str:
    firsts = [date(2023, month, 1) for month in range(1, 13)]
    return " ".join(f"{first:%B}" for first in firsts if (first + timedelta(days)).day == 1)


COMPUTED: dict[str, Callable[[], object]] = {
    "arith-01": lambda: 14 * 24 - 37,
    "arith-02": lambda: 3 * 18 - 5 * (18 // 4),
    "arith-03": lambda: (240 - Fraction(3, 5) * 240) / 4,
    "arith-04": lambda: 80 * Fraction(75, 100) * Fraction(90, 100),
    "arith-05": lambda: next(n + 2 for n in range(100) if 3 * n + 3 == 201),
    "arith-06": lambda: 6 * 64 + 3 * 48,
    "unit-01": lambda: 3600 // 45,
    "unit-02": lambda: int(timedelta(hours=2, minutes=13, seconds=7).total_seconds()),
    "unit-03": lambda: 150 * 60 // 60,
    "unit-04": lambda: float(Fraction(600, 4) * 14 / 1000),
    "unit-05": lambda: 2400 // 25,
    "unit-06": lambda: 18_000 // 60,
    "date-01": lambda: f"{date(2024, 3, 1):%A}",
    "date-02": lambda: date(2023, 1, 20) + timedelta(45),
    "date-03": lambda: (date(2024, 3, 1) - date(2024, 2, 28)).days,
    "date-04": lambda: date(2023, 3, 1) - timedelta(1),
    "date-05": lambda: f"{datetime(2024, 1, 1, 22, 50) + timedelta(minutes=95):%H:%M}",  # noqa: DTZ001
    "date-06": lambda: f"{date(2026, 7, 4):%A}",
    "string-01": lambda: "lantern"[::-1],
    "string-02": lambda: "The elephant entered the theatre".lower().count("e"),
    "string-03": lambda: "".join(w[0] for w in ["Every", "road", "ends", "somewhere"]).upper(),
    "string-04": lambda: " ".join(sorted(["pear", "fig", "apple", "mango"])),
    "string-05": lambda: words_by_length("the quick brown fox jumps")[2],
    "logic-01": glims,
    "logic-02": second_oldest,
    "logic-03": box_with_key,
    "logic-04": true_statement,
    "logic-05": lambda: len(list(itertools.combinations(range(4), 2))),
    "logic-06": rain,
    "json-03": lambda: json.dumps({"date": f"{date(2027, 5, 9)}", "time": f"{12 + 3}:15"}),
    "json-04": lambda: json.dumps({"lines": 3, "total": 2 * 19.5 + 120 + 4 * 2.25}),
    "json-06": lambda: json.dumps({vowel: "education".count(vowel) for vowel in "aeiou"}),
    "words-04": lambda: months_of(30),
}
BY_HAND = {
    *(f"class-{number:02}" for number in range(1, 7)),
    *("json-01", "json-02", "json-05", "words-01", "words-02", "words-03", "words-05", "words-06"),
}


def scored(task: Task, answer: object) -> float:
    return score_text(task, f"I think so.\nANSWER: {answer}").value


def test_there_are_eight_groups_of_six() -> None:
    assert load_tasks([str(SAMPLES)]).refused == ()
    assert set(Counter(one.group_id for one in TASKS.values()).values()) == {6}
    assert len(TASKS) == 48
    assert set(COMPUTED) | BY_HAND | {"string-06"} == set(TASKS)


@pytest.mark.parametrize("name", COMPUTED)
def test_the_known_answer_is_the_computed_one(name: str) -> None:
    task, answer = TASKS[name], COMPUTED[name]()
    assert scored(task, answer) == 1.0
    if not name.startswith("json"):
        assert task.expected[0] == str(answer)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"string-06"}))
def test_every_task_takes_its_own_answer_and_no_other(name: str) -> None:
    task = TASKS[name]
    for answer in task.expected:
        assert scored(task, answer) == 1.0
    others = [one.expected[0] for one in TASKS.values() if one.id != name and one.expected]
    same = {answer for answer in others if task.expected[0].lower() == answer.lower()}
    assert all(scored(task, answer) < 1.0 for answer in others if answer not in same)


def test_labels_fit_their_classes() -> None:
    for task in TASKS.values():
        labels = getattr(task.evaluator, "labels", {})
        assert not labels or task.expected[0] in labels


@pytest.mark.parametrize(("code", "score"), [("AB-0189", 1.0), ("AB-1123", 0.0), ("AB-9876", 0.0)])
def test_the_code_has_rising_digits(code: str, score: float) -> None:
    assert scored(TASKS["string-06"], code) == score
    digits = [int(digit) for digit in code[3:]]
    assert (digits == sorted(set(digits))) == bool(score)


def test_extractions_hold_what_their_text_says() -> None:
    for name in ("json-01", "json-05"):
        task = TASKS[name]
        for value in json.loads(task.expected[0]).values():
            for word in value if isinstance(value, list) else [value]:
                assert str(word) in task.prompt
