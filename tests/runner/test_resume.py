from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from cert.backends.protocol import SamplingParams
from cert.core.errors import ConfigurationError, NumericalError
from cert.inputs.case import PromptCase, RefusedInput
from cert.inputs.ids import content_id
from cert.ledger.canonical import canonical_bytes
from cert.runner.pipeline import run_cases
from cert.runner.record_file import RecordFile
from cert.runner.resume import Expected, Resumed, check_model, prepare_append, resume
from cert.runner.tally import Tally
from tests.runner.helpers import engine, settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Made = tuple[list[bytes], str, str]
"""Lines, policy digest, model digest."""

SAMPLING = {
    "max_new_tokens": 3,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "seed": None,
    "stop": [],
}
CASES: list[PromptCase | RefusedInput] = [
    PromptCase(id="a", text="first", source="in.txt", line=1),
    RefusedInput("in.txt", 2, "InvalidInput", "not UTF-8"),
    PromptCase(id="b", text="bad", source="in.txt", line=3),
    PromptCase(id="c", text="scored", response="a model measures", source="in.txt", line=4),
    PromptCase(id="d", text="last", source="in.txt", line=5),
]


def produce(cases: Sequence[PromptCase | RefusedInput] = CASES, **changes: object) -> Made:
    with engine(errors={"bad": NumericalError("NaN")}) as (running, backend):
        lines = [one.line for one in run_cases(iter(cases), running, settings(**changes))]
        return lines, running.policy.digest, backend.identity.digest


@pytest.fixture(scope="module")
def made() -> Made:
    return produce()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def opened(stack: ExitStack, path: Path, lines: list[bytes], end: bytes = b"") -> RecordFile:
    path.write_bytes(b"".join(line + b"\n" for line in lines) + end)
    return stack.enter_context(RecordFile(path))


def expected(made: Made, **changes: Any) -> Expected:  # noqa: ANN401 - any field
    values: dict[str, Any] = {"policy_digest": made[1], "sampling": SAMPLING, "content": "full"}
    return Expected(**{**values, **changes})


@pytest.mark.parametrize("count", range(6))
def test_it_continues_after_what_is_there(
    tmp_path: Path, stack: ExitStack, made: Made, count: int
) -> None:
    file = opened(stack, tmp_path / "out", made[0][:count])
    cases = iter(CASES)
    resumed = resume([file], cases, expected(made))
    assert list(cases) == CASES[count:]
    assert resumed.tally.total == count
    assert resumed.model_digest == (made[2] if count else None)
    assert resumed.torn == resumed.completed == []


def test_what_is_there_is_counted_by_its_outcome(
    tmp_path: Path, stack: ExitStack, made: Made
) -> None:
    file = opened(stack, tmp_path / "out", made[0])
    tally = resume([file], iter(CASES), expected(made)).tally
    assert (tally.audited, tally.errors, tally.refused) == (3, 1, 1)


def test_without_files_there_is_nothing_to_continue(made: Made) -> None:
    cases = iter(CASES)
    assert resume([], cases, expected(made)).tally == Tally()
    assert len(list(cases)) == 5


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_torn_last_line_is_set_aside(
    tmp_path: Path, stack: ExitStack, made: Made, cut: int
) -> None:
    path = tmp_path / "out"
    file = opened(stack, path, made[0][:2], made[0][3][:cut])
    cases = iter(CASES)
    resumed = resume([file], cases, expected(made))
    assert len(list(cases)) == 3
    (copy,) = resumed.torn
    assert (tmp_path / copy).read_bytes() == made[0][3][:cut]
    assert path.read_bytes() == b"".join(line + b"\n" for line in made[0][:2])


def test_a_torn_end_of_nul_bytes_after_our_records_is_set_aside(
    tmp_path: Path, stack: ExitStack, made: Made
) -> None:
    file = opened(stack, tmp_path / "out", made[0][:1], b"\0" * 100)
    assert len(resume([file], iter(CASES), expected(made)).torn) == 1


@pytest.mark.parametrize("content", [b"my notes, without a newline", b"\0" * 10, b"x"])
def test_a_file_that_is_not_ours_is_neither_cut_nor_continued(
    tmp_path: Path, stack: ExitStack, made: Made, content: bytes
) -> None:
    path = tmp_path / "out"
    file = opened(stack, path, [], content)
    with pytest.raises(ConfigurationError, match="something else than records"):
        resume([file], iter(CASES), expected(made))
    with pytest.raises(ConfigurationError, match="something else than records"):
        prepare_append(file)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "line", [b"", b"my notes", b"[1]", b'{"kind":"genesis"}', b'{"kind": "refused"}', b"\xff\0"]
)
def test_a_line_that_is_no_record_is_refused_and_named(
    tmp_path: Path, stack: ExitStack, made: Made, line: bytes
) -> None:
    path = tmp_path / "out"
    file = opened(stack, path, [made[0][0], line], b'{"tor')
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="out:2 is not a record"):
        resume([file], iter(CASES), expected(made))
    assert path.read_bytes() == before


def altered(line: bytes, **path_values: object) -> bytes:
    record = json.loads(line)
    for path, value in path_values.items():
        *outer, last = path.split("__")
        inner = record
        for key in outer:
            inner = inner[key]
        inner[last] = value
    return canonical_bytes(record)


@pytest.mark.parametrize(
    ("number", "change", "reason"),
    [
        (0, {"prompt__id": "x\x1b[2J"}, "the input has the id a here"),
        (0, {"prompt__text": "other"}, "another prompt under the same id"),
        (0, {"assessment__policy__digest": "sha256:0"}, "another policy"),
        (0, {"content": "omitted"}, "content is not `full`"),
        (0, {"provenance__sampling__temperature": 0.5}, "temperature was 0.5, now it is 0.0"),
        (0, {"provenance__sampling__stop": ["x"]}, "stop was"),
        (0, {"provenance__sampling": None}, "max_new_tokens was None"),
        (0, {"generation__finish_reason": "scored"}, "a given response"),
        (1, {"input__line": 7}, "line 2 of the input is refused"),
        (1, {"kind": "error"}, "line 2 of the input is refused"),
        (2, {"prompt__id": "x"}, "the input has the id b here"),
        (3, {"generation__text": "other"}, "another response"),
        (4, {"provenance__model__digest": "sha256:0"}, "several models"),
    ],
)
def test_records_of_another_input_or_other_settings_are_refused(  # noqa: PLR0917 - parameters
    tmp_path: Path,
    stack: ExitStack,
    made: Made,
    number: int,
    change: dict[str, object],
    reason: str,
) -> None:
    lines = list(made[0])
    lines[number] = altered(lines[number], **change)
    path = tmp_path / "out"
    file = opened(stack, path, lines, b'{"tor')
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=reason) as caught:
        resume([file], iter(CASES), expected(made))
    assert caught.value.message.startswith("this output belongs to another input or settings")
    assert f"out:{number + 1}" in caught.value.message
    assert path.read_bytes() == before


def test_an_input_that_became_shorter_is_another_input(
    tmp_path: Path, stack: ExitStack, made: Made
) -> None:
    file = opened(stack, tmp_path / "out", made[0])
    with pytest.raises(ConfigurationError, match="the input ends before it"):
        resume([file], islice(iter(CASES), 4), expected(made))


def test_a_seed_that_was_drawn_may_be_any_but_a_given_one_must_be_the_same(
    tmp_path: Path, stack: ExitStack, made: Made
) -> None:
    sampling = SamplingParams(max_new_tokens=3, temperature=1.0)
    lines, policy, _ = produce(CASES[:1], sampling=sampling)
    file = opened(stack, tmp_path / "out", lines)
    drawn = {**SAMPLING, "temperature": 1.0}
    resume([file], iter(CASES), Expected(policy, drawn, "full"))
    with pytest.raises(ConfigurationError, match="seed was"):
        resume([file], iter(CASES), Expected(policy, {**drawn, "seed": 12345}, "full"))


def test_records_without_content_are_continued_by_their_ids(
    tmp_path: Path, stack: ExitStack
) -> None:
    lines, policy, _ = produce(content="omitted")
    file = opened(stack, tmp_path / "out", lines[:4])
    cases = iter(CASES)
    resume([file], cases, Expected(policy, SAMPLING, "omitted"))
    assert list(cases) == CASES[4:]


def test_ids_that_follow_from_prompts_are_continued_by_their_places(
    tmp_path: Path, stack: ExitStack
) -> None:
    named = [
        replace(one, id=content_id(one.text, one.response)) if isinstance(one, PromptCase) else one
        for one in CASES
    ]
    lines, policy, _ = produce(named, content="omitted")
    assert json.loads(lines[0])["prompt"]["id"] == "in.txt:1"
    file = opened(stack, tmp_path / "out", lines[:4])
    cases = iter(named)
    resume([file], cases, Expected(policy, SAMPLING, "omitted"))
    assert list(cases) == named[4:]
    moved = [replace(one, line=9) if one is named[0] else one for one in named]
    with pytest.raises(ConfigurationError, match=r"in\.txt:9"):
        resume([file], iter(moved), Expected(policy, SAMPLING, "omitted"))


def test_outputs_that_are_behind_are_brought_level(
    tmp_path: Path, stack: ExitStack, made: Made
) -> None:
    first = opened(stack, tmp_path / "first", made[0][:1], b'{"x')
    second = opened(stack, tmp_path / "second", made[0][:3])
    third = opened(stack, tmp_path / "third", [])
    cases = iter(CASES)
    resumed = resume([first, second, third], cases, expected(made))
    assert len(list(cases)) == 2
    assert resumed.tally.total == 3
    assert resumed.completed == [str(tmp_path / "first"), str(tmp_path / "third")]
    whole = b"".join(line + b"\n" for line in made[0][:3])
    assert {path.read_bytes() for path in tmp_path.iterdir() if ".torn" not in path.name} == {whole}


def test_outputs_that_differ_are_refused(tmp_path: Path, stack: ExitStack, made: Made) -> None:
    first = opened(stack, tmp_path / "first", made[0][:3])
    other = altered(made[0][0], time="2020-01-01T00:00:00.000Z")
    second = opened(stack, tmp_path / "second", [other], b'{"x')
    with pytest.raises(ConfigurationError, match=r"it differs from .*first"):
        resume([first, second], iter(CASES), expected(made))
    assert (tmp_path / "second").read_bytes() == other + b'\n{"x'


def test_another_model_is_refused() -> None:
    check_model(Resumed(), "sha256:1", "out")
    check_model(Resumed(model_digest="sha256:1"), "sha256:1", "out")
    with pytest.raises(ConfigurationError, match="its model is sha256:1, this one is sha256:2"):
        check_model(Resumed(model_digest="sha256:1"), "sha256:2", "out")


def test_appending_needs_our_record_at_the_end(
    tmp_path: Path, stack: ExitStack, made: Made
) -> None:
    assert prepare_append(opened(stack, tmp_path / "new", [])) is None
    assert prepare_append(opened(stack, tmp_path / "whole", made[0][:2])) is None
    torn = opened(stack, tmp_path / "torn", made[0][:2], b'{"x')
    assert prepare_append(torn) is not None
    assert (tmp_path / "torn").read_bytes().endswith(made[0][1] + b"\n")
    with pytest.raises(ConfigurationError, match="last line is not a record"):
        prepare_append(opened(stack, tmp_path / "notes", [made[0][0], b"notes"]))


def test_a_case_keeps_its_place_in_the_input(tmp_path: Path, stack: ExitStack, made: Made) -> None:
    moved = [replace(CASES[0], source="moved.txt"), *CASES[1:]]
    file = opened(stack, tmp_path / "out", made[0][:1])
    assert resume([file], iter(moved), expected(made)).tally.total == 1
