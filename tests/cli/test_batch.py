from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cert.core.errors import NumericalError
from cert.runner.record_file import RecordFile
from cert_cli import local
from tests.cli.helpers import records_of

if TYPE_CHECKING:
    from pathlib import Path

    from cert.runner.pipeline import RunSettings
    from tests.cli.helpers import Program

PASSING = "id: p\nversion: 1\nchecks:\n  - {signal: perplexity, op: '<', threshold: 50}\n"


@pytest.fixture(autouse=True)
def inputs(folder: Path) -> None:
    (folder / "in.txt").write_text("".join(f"prompt {n}\n" for n in range(1, 11)))
    (folder / "p.yaml").write_text(PASSING)


def texts(records: list[dict[str, Any]]) -> list[str]:
    return [one["prompt"]["text"] for one in records]


def test_one_record_a_line_in_input_order_on_stdout_and_in_files(
    cert: Program, folder: Path
) -> None:
    ran = cert("batch", "in.txt", "-m", "fake", "-o", "a.jsonl", "-o", "jsonl:b.jsonl")
    assert texts(ran.records) == [f"prompt {n}" for n in range(1, 11)]
    assert (folder / "a.jsonl").read_text() == ran.out == (folder / "b.jsonl").read_text()
    assert stat.S_IMODE((folder / "a.jsonl").stat().st_mode) == 0o600
    assert len({one["run_id"] for one in ran.records}) == 1


def test_a_summary_ends_a_batch_unless_it_is_to_be_quiet(cert: Program) -> None:
    args = ("batch", "in.txt", "-m", "fake", "--policy", "p.yaml")
    assert "10 passed, 0 failed, 0 inconclusive, 0 errors, 0 refused" in cert(*args).err
    assert cert(*args, "-q").err == ""


@pytest.mark.parametrize(
    ("logprob", "errors", "more", "code"),
    [
        (-0.1, (), (), 0),
        (-9.0, (), (), 1),
        (-0.1, ("prompt 3",), (), 4),
        (-9.0, ("prompt 3",), (), 4),
        (-9.0, ("prompt 3",), ("--max-errors", "1"), 1),
        (-0.1, ("prompt 3",), ("--max-errors", "10%"), 0),
        (-0.1, ("prompt 3", "prompt 4"), ("--max-errors", "10%"), 4),
        (-0.1, tuple(f"prompt {n}" for n in range(1, 11)), ("--max-errors", "100%"), 7),
        (-0.1, tuple(f"prompt {n}" for n in range(1, 11)), (), 4),
    ],
)
def test_where_several_codes_apply_errors_come_before_failures(
    cert: Program, logprob: float, errors: tuple[str, ...], more: tuple[str, ...], code: int
) -> None:
    cert.loader.settings = {
        "logprob": logprob,
        "errors": {one: NumericalError("NaN") for one in errors},
    }
    ran = cert("batch", "in.txt", "-m", "fake", "--policy", "p.yaml", *more)
    assert ran.code == code
    assert len(ran.records) == 10


def test_failures_come_before_inconclusive_ones(cert: Program, folder: Path) -> None:
    (folder / "p.yaml").write_text(PASSING.replace("50}", "1.2}") + "min_tokens: 3\n")
    cert.loader.settings = {"logprob": -0.1}
    lines = [{"prompt": "a", "response": "one"}, {"prompt": "b", "response": "one two three"}]
    (folder / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    args = ("batch", "in.jsonl", "-m", "fake", "--policy", "p.yaml")
    assert cert(*args).code == 3
    cert.loader.settings = {"logprob": -1.0}
    assert cert(*args).code == 1


def test_fields_formats_and_delimiters_are_as_told(cert: Program, folder: Path) -> None:
    (folder / "q.data").write_text("nr;frage;antwort;art\n7;Was?;a model;x\n8;Wie?;of it;y\n")
    ran = cert(
        *("batch", "q.data", "-m", "fake", "--input-format", "csv", "--delimiter", ";"),
        *("--prompt-field", "frage", "--id-field", "nr", "--response-field", "antwort"),
        *("--group-field", "art", "--label-field", "nr2"),
    )
    assert ran.code == 2
    assert "nr2" in ran.err
    ran = cert(
        *("batch", "q.data", "-m", "fake", "--input-format", "csv", "--delimiter", ";"),
        *("--prompt-field", "frage", "--id-field", "nr", "--response-field", "antwort"),
        *("--group-field", "art"),
    )
    assert [one["prompt"]["id"] for one in ran.records] == ["7", "8"]
    assert [one["prompt"]["group"] for one in ran.records] == ["x", "y"]
    assert {one["generation"]["finish_reason"] for one in ran.records} == {"scored"}


def test_several_inputs_and_stdin_are_one_input(cert: Program, folder: Path) -> None:
    (folder / "b.jsonl").write_text('{"prompt": "second"}\n')
    ran = cert("batch", "in.txt", "-", "b.jsonl", "-m", "fake", stdin="piped\n")
    assert texts(ran.records)[-2:] == ["piped", "second"]
    assert [one["input"]["source"] for one in ran.records][-3:] == ["in.txt", "-", "b.jsonl"]


def test_a_limit_takes_the_first_lines(cert: Program) -> None:
    assert texts(cert("batch", "in.txt", "-m", "fake", "--limit", "3").records) == [
        "prompt 1",
        "prompt 2",
        "prompt 3",
    ]


def test_batch_rows_reach_the_model(cert: Program) -> None:
    cert("batch", "in.txt", "-m", "fake", "--batch-rows", "3")
    assert cert.loader.calls[0]["batch_rows"] == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("missing.txt",), "missing.txt"),
        (("in.txt", "--max-errors", "some"), "--max-errors"),
        (("in.txt", "--limit", "0"), "limit"),
        (("in.txt", "--batch-rows", "0"), "batch_rows"),
        (("in.txt", "--resume", "always"), "resume"),
        (("in.txt", "--prompt-field", "id"), "one field cannot serve two purposes"),
        (("in.txt", "--delimiter", ""), "delimiter"),
        (("in.txt", "--input-format", "parquet"), ""),
        (("in.txt", "-o", "in.txt"), "input and output at once"),
        ((), "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    cert: Program, args: tuple[str, ...], message: str
) -> None:
    ran = cert("batch", *args, "-m", "fake")
    assert ran.code in {2, 7}
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_no_prompts_and_only_refused_lines_audit_nothing(cert: Program, folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(b"")
    assert cert("batch", "in.jsonl", "-m", "fake").code == 7
    (folder / "in.jsonl").write_bytes(b"{\n{\n")
    ran = cert("batch", "in.jsonl", "-m", "fake", "--max-errors", "100%")
    assert ran.code == 7
    assert [one["kind"] for one in ran.records] == ["refused", "refused"]


def test_the_same_command_again_continues(cert: Program, folder: Path) -> None:
    args = ("batch", "in.txt", "-m", "fake", "-o", "out.jsonl")
    whole = cert(*args)
    out = folder / "out.jsonl"
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    again = cert(*args)
    assert again.code == whole.code
    assert "continuing after 4 records" in again.err
    assert "incomplete last line" in again.err
    assert texts(again.records) == [f"prompt {n}" for n in range(5, 11)]
    assert texts(records_of(out)) == [f"prompt {n}" for n in range(1, 11)]
    assert out.read_bytes().startswith(b"".join(lines[:4]))
    summary = whole.err.splitlines()[-1]
    assert again.err.splitlines()[-1] == summary


def test_a_finished_output_stays_as_it_is(cert: Program, folder: Path) -> None:
    args = ("batch", "in.txt", "-m", "fake", "-o", "out.jsonl")
    first = cert(*args)
    before = (folder / "out.jsonl").read_bytes()
    again = cert(*args)
    assert (again.code, again.out) == (first.code, "")
    assert (folder / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        ("--seed", "5", "--temperature", "0.5"),
        ("--max-new-tokens", "5"),
        ("--policy", "strict"),
        ("-m", "other"),
        ("--content", "omitted"),
        ("--limit", "3"),
    ],
)
def test_other_settings_do_not_continue_an_output(
    cert: Program, folder: Path, change: tuple[str, ...]
) -> None:
    args = ("batch", "in.txt", "-m", "fake", "-o", "out.jsonl")
    cert(*args)
    before = (folder / "out.jsonl").read_bytes()
    ran = cert(*args, *change)
    assert ran.code == 2
    assert "another input or settings" in ran.err
    assert "hint: " in ran.err
    assert (folder / "out.jsonl").read_bytes() == before


def test_another_input_does_not_continue_an_output(cert: Program, folder: Path) -> None:
    cert("batch", "in.txt", "-m", "fake", "-o", "out.jsonl")
    (folder / "in.txt").write_text("something else\n")
    assert cert("batch", "in.txt", "-m", "fake", "-o", "out.jsonl").code == 2


def test_resume_never_refuses_an_output_that_holds_something(cert: Program, folder: Path) -> None:
    (folder / "out.jsonl").touch()
    args = ("batch", "in.txt", "-m", "fake", "-o", "out.jsonl", "--resume", "never")
    assert len(cert(*args).records) == 10
    ran = cert(*args)
    assert ran.code == 2
    assert "not empty" in ran.err


def test_an_output_in_use_says_by_whom(cert: Program, folder: Path) -> None:
    with RecordFile(folder / "out.jsonl"):
        ran = cert("batch", "in.txt", "-m", "fake", "-o", "out.jsonl")
    assert ran.code == 2
    assert "is being written by another process (pid" in ran.err


def test_a_human_file_is_written_beside_the_records(cert: Program, folder: Path) -> None:
    cert("batch", "in.txt", "-m", "fake", "-o", "human:view.txt", "-o", "out.jsonl", "-q")
    lines = (folder / "view.txt").read_text().splitlines()
    assert len(lines) == 10
    assert all(line.split()[0] in {"pass", "fail"} for line in lines)
    assert "\x1b" not in (folder / "view.txt").read_text()


def test_human_on_stdout_is_one_line_a_prompt(cert: Program, folder: Path) -> None:
    cert.loader.settings = {"errors": {"two": NumericalError("NaN\x1b[2J")}}
    (folder / "in.jsonl").write_text('{"prompt":"one"}\n{"prompt":"two"}\n{\n')
    ran = cert("batch", "in.jsonl", "-m", "fake", "--format", "human", "--no-color")
    first, second, third = ran.out.splitlines()
    assert first.split()[0] in {"pass", "fail"}
    assert second.startswith("error")
    assert "NumericalError" in second
    assert third.startswith("refused")
    assert "in.jsonl:3" in third
    assert "\x1b" not in ran.out


def test_texts_are_not_shown_where_records_omit_them(cert: Program) -> None:
    args = ("batch", "in.txt", "-m", "fake", "--content", "omitted")
    ran = cert(*args, "--format", "human", "-o", "human:view.txt")
    for word in ("prompt 1", "model", "measures"):
        assert word not in ran.out


def test_a_dry_run_counts_and_writes_nothing(cert: Program, folder: Path, tiny: Path) -> None:
    (folder / "in.jsonl").write_text('{"prompt":"one"}\n{\n{"prompt":"two","response":"three"}\n')
    ran = cert("batch", "in.txt", "in.jsonl", "-m", tiny, "--dry-run", "-o", "out.jsonl")
    assert ran.code == 0
    assert "in.txt: 10 prompts, 0 refused" in ran.out
    assert "in.jsonl: 2 prompts, 1 refused" in ran.out
    assert "refused   in.jsonl:2: " in ran.out
    assert "at most 704 to generate (11 prompts times --max-new-tokens 64)" in ran.out
    assert "memory    weights" in ran.out
    assert "time      about" in ran.out
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "in.txt", "p.yaml"]


def test_a_dry_run_without_a_model_still_counts(cert: Program, folder: Path) -> None:
    ran = cert("batch", "in.txt", "-m", "./no-such-model", "--dry-run")
    assert ran.code == 0
    assert "no-such-model" in ran.out
    assert "10 prompts" in ran.out
    (folder / "in.txt").write_text("")
    assert cert("batch", "in.txt", "-m", "./no-such-model", "--dry-run").code == 7


def test_many_refused_lines_are_counted_and_some_shown(cert: Program, folder: Path) -> None:
    (folder / "in.jsonl").write_text("{\n" * 30)
    ran = cert("batch", "in.jsonl", "-m", "./no-such-model", "--dry-run")
    assert ran.out.count("refused   in.jsonl:") == 10
    assert "and 20 more" in ran.out


@pytest.mark.parametrize(("more", "in_flight"), [((), 6), (("--timeout", "60"), 3)])
def test_with_a_timeout_no_more_prompts_are_submitted_than_run(
    cert: Program, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], in_flight: int
) -> None:
    seen: list[RunSettings] = []
    original = local.run_in_groups

    def watched(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on
        seen.append(args[2])
        return original(*args, **kwargs)

    monkeypatch.setattr(local, "run_in_groups", watched)
    assert len(cert("batch", "in.txt", "-m", "fake", "--batch-rows", "3", *more).records) == 10
    assert [one.in_flight for one in seen] == [in_flight]
