from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from cert.coordination.evaluator_parameters import (
    Compared,
    Exact,
    Judged,
    Numeric,
    Object,
    Pattern,
    TokenF1,
)
from cert.coordination.task_files import load_tasks
from cert.coordination.tasks import Task
from cert.core.errors import ConfigurationError, InvalidInput
from tests.coordination.helpers import task

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {"id": "a", "group": "g", "prompt": "1 + 1?", "label": "2", "evaluator": "numeric"}
RUBRIC = [{"id": "clear", "text": "Is it clear?"}]


def write(folder: Path, *lines: object, name: str = "tasks.jsonl") -> str:
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return str(path)


def test_tasks_are_read_with_their_place(tmp_path: Path) -> None:
    path = write(tmp_path, "", GOOD, {**GOOD, "id": "b", "group": None, "label": 2})
    read = load_tasks([path])
    assert read.refused == ()
    assert [(one.id, one.group_id, one.line) for one in read.tasks] == [
        ("a", "g", 2),
        ("b", "b", 3),
    ]
    assert read.tasks[0].evaluator == Numeric()
    assert read.tasks[0].expected == read.tasks[1].expected == ("2",)


@pytest.mark.parametrize(
    ("evaluator", "kind"),
    [
        ("exact", Exact()),
        ({"name": "exact", "case": "keep", "accept": ["two"]}, Exact("keep", ("two",))),
        ({"name": "numeric", "unit": "km", "absolute": 0.5}, Numeric(0.5, unit="km")),
        ({"name": "token_f1"}, TokenF1()),
        ({"name": "regex", "pattern": "a+"}, Pattern("a+")),
        ({"name": "judge", "rubric": RUBRIC}, "Judged"),
        ({"name": "judge_pair", "question": "Which is clearer?"}, Compared("Which is clearer?")),
    ],
)
def test_evaluators_come_by_name_or_with_parameters(
    tmp_path: Path, evaluator: object, kind: object
) -> None:
    read = load_tasks([write(tmp_path, {**GOOD, "evaluator": evaluator})])
    assert read.refused == ()
    found = read.tasks[0].evaluator
    assert found == kind or (kind == "Judged" and isinstance(found, Judged))


def test_accepted_answers_stand_behind_the_label(tmp_path: Path) -> None:
    evaluator = {"name": "exact", "accept": ["two", "II"]}
    read = load_tasks([write(tmp_path, {**GOOD, "evaluator": evaluator})])
    assert read.tasks[0].expected == ("2", "two", "II")


BAD = {
    "not JSON": ("{", "not JSON"),
    "twice": ('{"id": "a", "id": "b"}', "a key occurs twice"),
    "no prompt": ({"id": "a", "evaluator": "exact"}, "prompt is null"),
    "no id": ({**GOOD, "id": None}, "there is no id"),
    "no evaluator": ({"id": "a", "prompt": "p", "label": "l"}, "there is no evaluator"),
    "unknown": ({**GOOD, "evaluator": "exakt"}, "exakt"),
    "a list": ({**GOOD, "evaluator": ["exact"]}, "the evaluator"),
    "another key": ({**GOOD, "evaluator": {"name": "exact", "casse": "keep"}}, "casse"),
    "case": ({**GOOD, "evaluator": {"name": "exact", "case": "lower"}}, "expected fold or keep"),
    "no label": ({**GOOD, "label": None}, "there is no label"),
    "empty accept": ({**GOOD, "evaluator": {"name": "exact", "accept": [" "]}}, "empty text"),
    "many accept": ({**GOOD, "evaluator": {"name": "exact", "accept": ["a"] * 101}}, "at most 100"),
    "no number": ({**GOOD, "label": "two"}, "no number"),
    "other unit": (
        {**GOOD, "label": "2 kg", "evaluator": {"name": "numeric", "unit": "m"}},
        "unit",
    ),
    "no unit": ({**GOOD, "evaluator": {"name": "numeric", "unit": "furlong"}}, "no unit 'furlong'"),
    "tolerance": ({**GOOD, "evaluator": {"name": "numeric", "absolute": -1}}, "0 or more"),
    "no pattern": ({**GOOD, "evaluator": {"name": "regex", "pattern": ""}}, "0 characters"),
    "long pattern": ({**GOOD, "evaluator": {"name": "regex", "pattern": "a" * 2001}}, "2001"),
    "bad pattern": ({**GOOD, "evaluator": {"name": "regex", "pattern": "("}}, "regular expression"),
    "half pattern": ({**GOOD, "evaluator": {"name": "regex", "pattern": ")|("}}, "regular"),
    "look-ahead": ({**GOOD, "evaluator": {"name": "regex", "pattern": "(?=a)"}}, "look-around"),
    "huge": ({**GOOD, "evaluator": {"name": "regex", "pattern": "(a{999}){999}"}}, "compiled"),
    "bad schema": ({**GOOD, "evaluator": {"name": "json", "schema": {"type": "x"}}}, "schema"),
    "remote": (
        {**GOOD, "evaluator": {"name": "json", "schema": {"$ref": "http://127.0.0.1:9/s"}}},
        "not followed",
    ),
    "no object": ({**GOOD, "evaluator": {"name": "json", "schema": {}}}, "no JSON object"),
    "other object": (
        {
            **GOOD,
            "label": '{"a": 1}',
            "evaluator": {"name": "json", "schema": {"required": ["b"]}},
        },
        "does not follow the schema",
    ),
    "no rubric": ({**GOOD, "evaluator": {"name": "judge", "rubric": []}}, "0 criteria"),
    "rubric twice": ({**GOOD, "evaluator": {"name": "judge", "rubric": RUBRIC * 2}}, "twice"),
    "rubric id": (
        {**GOOD, "evaluator": {"name": "judge", "rubric": [{"id": "a b", "text": "x"}]}},
        "letters",
    ),
    "rubric text": (
        {**GOOD, "evaluator": {"name": "judge", "rubric": [{"id": "a", "text": " "}]}},
        "asks nothing",
    ),
    "no question": ({**GOOD, "evaluator": {"name": "judge_pair", "question": ""}}, "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_refused_and_the_others_go_on(tmp_path: Path, name: str) -> None:
    line, reason = BAD[name]
    read = load_tasks([write(tmp_path, {**GOOD, "id": "x"}, line, {**GOOD, "id": "z"})])
    assert [one.id for one in read.tasks] == ["x", "z"]
    (refused,) = read.refused
    assert refused.line == 2
    assert refused.source.endswith("tasks.jsonl")
    assert reason in refused.message


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b'{"id": "' + b"x" * 4_000_000 + b'"}\n' + json.dumps(GOOD).encode())
    read = load_tasks([str(path)])
    assert [one.id for one in read.tasks] == ["a"]
    assert [(one.line, one.error_type) for one in read.refused] == [(1, "PromptTooLong")]


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(json.dumps(GOOD).encode("utf-16"))
    assert "UTF-16" in load_tasks([str(path)]).refused[0].message


def test_an_id_that_stands_twice_is_an_error_that_names_both_lines(tmp_path: Path) -> None:
    first = write(tmp_path, GOOD, name="one.jsonl")
    second = write(tmp_path, {**GOOD, "id": "b"}, GOOD, name="two.jsonl")
    with pytest.raises(ConfigurationError) as raised:
        load_tasks([first, second])
    assert f"{second}:2" in raised.value.message
    assert f"{first}:1" in raised.value.message


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="JSON Lines and CSV"):
        load_tasks([write(tmp_path, "hello", name="tasks.txt")])


def test_a_csv_says_the_same(tmp_path: Path) -> None:
    rows = [
        ["id", "group", "prompt", "label", "evaluator"],
        ["a", "g", "1 + 1?", "2", "numeric"],
        ["b", "", "2, or\ntwo?", "2", json.dumps({"name": "exact", "accept": ["two"]})],
        ["c", "g", "p", "x", ""],
        ["d", "g", "p", "x", '{"name"'],
        ["e", "g", "p", "", "exact"],
        ["f", "g", "", "x", "exact"],
    ]
    path = tmp_path / "tasks.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    read = load_tasks([str(path)])
    assert [one.id for one in read.tasks] == ["a", "b"]
    assert read.tasks[0].digest == load_tasks([write(tmp_path, GOOD)]).tasks[0].digest
    assert (read.tasks[1].group_id, read.tasks[1].expected) == ("b", ("2", "two"))
    assert [one.line for one in read.refused] == [5, 6, 7, 8]
    assert "the evaluator is empty" in read.refused[0].message
    assert "not JSON" in read.refused[1].message


def test_a_csv_without_an_evaluator_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no column 'evaluator'"):
        load_tasks([write(tmp_path, "id,prompt", "a,p", name="tasks.csv")])


def test_the_digest_is_of_everything_but_the_place() -> None:
    one = task(1)
    assert task(1, line=7, source="x").digest == one.digest
    for change in (
        {"id": "x"},
        {"group_id": "x"},
        {"prompt": "x"},
        {"expected": ("7",)},
        {"evaluator": Numeric(unit="m")},
        {"evaluator": Exact()},
    ):
        assert task(1, **change).digest != one.digest


def test_a_task_that_no_answer_is_right_for_cannot_be_made() -> None:
    with pytest.raises(InvalidInput):
        Task(
            id="a", group_id="a", prompt="p", evaluator=Object({"type": "array"}), expected=("{}",)
        )
    with pytest.raises(InvalidInput):
        Task(id="a", group_id="a", prompt="p", evaluator=Compared("q"))


def test_free_text_has_no_normal_form() -> None:
    from cert.coordination.answers import extract_answer

    free = Task(
        id="a",
        group_id="a",
        prompt="p",
        evaluator=Compared("q"),
        expected=("x",),
    )
    assert free.is_free_text
    assert free.normalise(extract_answer("hello")) is None
    assert task().normalise(None) is None
    assert task().normalise(extract_answer("ANSWER: 1.0")) == "1"
    assert task(evaluator=TokenF1()).normalise(extract_answer("ANSWER: A b.")) == "a b"
    assert task(evaluator=TokenF1()).normalise(extract_answer("...")) is None
    labels = Exact(labels={"yes": ("y",)})
    assert task(evaluator=labels).normalise(extract_answer("Y")) == "yes"
    found = task(evaluator=Object({}), expected=()).normalise(extract_answer('ANSWER: {"a":1 }'))
    assert found == '{"a":1}'
