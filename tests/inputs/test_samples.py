"""The sets under sample_prompts/ are what their README says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from cert.inputs.case import PromptCase, RefusedInput
from cert.inputs.reader import read_cases

SAMPLES = Path(__file__).resolve().parents[2] / "sample_prompts"
README = (SAMPLES / "README.md").read_text(encoding="utf-8")


def load(name: str) -> tuple[list[PromptCase], list[RefusedInput]]:
    items = list(read_cases([str(SAMPLES / name)]))
    return (
        [item for item in items if isinstance(item, PromptCase)],
        [item for item in items if isinstance(item, RefusedInput)],
    )


@pytest.mark.parametrize(
    ("name", "cases", "refused"),
    [
        ("plain.txt", 31, 0),
        ("questions.jsonl", 36, 0),
        ("support.csv", 20, 0),
        ("scored.jsonl", 26, 0),
        ("hostile.jsonl", 37, 17),
    ],
)
def test_counts_are_as_the_readme_says(name: str, cases: int, refused: int) -> None:
    found = load(name)
    assert (len(found[0]), len(found[1])) == (cases, refused)
    row = re.search(
        rf"^\| `{re.escape(name)}` \| (\d+) \w+(?:, (\d+) broken lines)? \|", README, re.MULTILINE
    )
    assert row is not None
    assert (int(row[1]), int(row[2] or 0)) == (cases, refused)


def test_every_sample_is_described() -> None:
    names = {path.name for path in SAMPLES.iterdir()} - {"README.md", ".gitattributes"}
    assert names == set(re.findall(r"^\| `([\w.]+)` \|", README, re.MULTILINE))


def test_questions_come_in_groups() -> None:
    cases, _ = load("questions.jsonl")
    assert set(Counter(case.group for case in cases).values()) == {6}


def test_scored_pairs_are_one_good_and_one_bad_a_prompt() -> None:
    cases, _ = load("scored.jsonl")
    assert all(case.response for case in cases)
    pairs = Counter((case.text, case.label) for case in cases)
    assert set(pairs.values()) == {1}
    assert {label for _, label in pairs} == {"good", "bad"}
    assert len(pairs) == 2 * len({text for text, _ in pairs})


def test_support_has_what_makes_csv_hard() -> None:
    cases, _ = load("support.csv")
    joined = "".join(case.text for case in cases)
    assert all(part in joined for part in (",", '"', "\n\n", "\r\n", "'"))
    assert [len(case.id) for case in cases[-2:]] == [16, 16]


def test_the_broken_lines_are_those_that_the_readme_names() -> None:
    _, refused = load("hostile.jsonl")
    table = README.partition("| line | why |")[2]
    named = [
        int(number)
        for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        for number in cell.split(",")
    ]
    assert [item.line for item in refused] == named


def test_the_hostile_prompts_arrive_unchanged() -> None:
    cases, _ = load("hostile.jsonl")
    by_id = {case.id: case.text for case in cases}
    assert by_id["nul"] == "before\0after"
    assert by_id["terminal-clipboard"].startswith("Copy this: \x1b]52;c;")
    assert by_id["nfc"] != by_id["nfd"]
    assert by_id["last"].startswith("After all of this")
