from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest

from cert.core.errors import GPUOutOfMemoryError, ModelUnavailableError, NumericalError
from cert.evidence.schema import record_schema
from cert.ledger.canonical import canonical_bytes
from tests.cli.helpers import ROOT, records_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.helpers import Program


def test_a_prompt_becomes_one_canonical_record_on_stdout(cert: Program) -> None:
    ran = cert("analyze", "Explain AI", "-m", "fake", "--max-new-tokens", "3", "--policy", "strict")
    (record,) = ran.records
    jsonschema.validate(record, record_schema())
    assert ran.out.encode() == canonical_bytes(record) + b"\n"
    assert record["prompt"]["text"] == "Explain AI"
    assert record["assessment"]["policy"]["id"] == "strict"
    assert record["signals"]["tokens"] == 3
    assert record["provenance"]["model"]["name"] == "fake"


@pytest.mark.parametrize(("logprob", "code", "verdict"), [(-0.1, 0, "pass"), (-9.0, 1, "fail")])
def test_the_exit_code_is_the_verdict(
    cert: Program, folder: Path, logprob: float, code: int, verdict: str
) -> None:
    cert.loader.settings = {"logprob": logprob}
    (folder / "p.yaml").write_text(
        "id: mine\nversion: 1\nchecks:\n  - {signal: perplexity, op: '<', threshold: 50}\n"
    )
    ran = cert("analyze", "Explain AI", "-m", "fake", "--policy", "p.yaml")
    assert ran.code == code
    assert ran.records[0]["assessment"]["verdict"] == verdict


def test_too_few_tokens_are_inconclusive(cert: Program, folder: Path) -> None:
    (folder / "p.yaml").write_text(
        "id: mine\nversion: 1\nmin_tokens: 5\n"
        "checks:\n  - {signal: perplexity, op: '<', threshold: 50}\n"
    )
    ran = cert("analyze", "AI", "-m", "fake", "--policy", "p.yaml", "--max-new-tokens", "2")
    assert ran.code == 3
    assert ran.records[0]["assessment"]["verdict"] == "inconclusive"


def test_the_default_model_is_said_to_be_there_to_try_the_tool(cert: Program) -> None:
    ran = cert("analyze", "Explain AI")
    assert "not to judge text" in ran.err
    assert ran.records[0]["assessment"]["policy"]["id"] == "reference"
    assert "not to judge text" not in cert("analyze", "Explain AI", "-q").err
    assert "not to judge text" not in cert("analyze", "Explain AI", "-m", "reference").err


def test_flags_win_over_the_environment_and_zero_is_a_value(
    cert: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_TEMPERATURE", "0.9")
    monkeypatch.setenv("CERT_TOP_K", "7")
    monkeypatch.setenv("DEVICE", "cpu")
    flags = ("--temperature", "0.0", "--seed", "0", "--stop", "x", "--stop", "y", "--top-p", "0.5")
    ran = cert("analyze", "Explain AI", "-m", "fake", *flags)
    sampling = ran.records[0]["provenance"]["sampling"]
    assert sampling == {
        "max_new_tokens": 64,
        "temperature": 0,
        "top_k": 7,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["x", "y"],
    }
    assert cert.loader.calls[0]["device"] == "cpu"


def test_flags_reach_the_model_and_the_record(cert: Program) -> None:
    ran = cert(
        *("analyze", "Explain AI", "-m", "fake", "--quantize", "8bit", "--dtype", "bfloat16"),
        *("--expect-digest", "sha256:12", "--allow-download", "--device", "cpu"),
        *("--correlation-id", "req-1", "--content", "omitted", "--chat", "never"),
    )
    (call,) = cert.loader.calls
    assert call["quantize"] == "8bit"
    assert call["dtype"] == "bfloat16"
    assert call["expect_digest"] == "sha256:12"
    assert call["allow_download"] is True
    assert cert.loader.backends[0].requests[0].chat == "never"
    (record,) = ran.records
    assert record["correlation_id"] == "req-1"
    assert "Explain AI" not in ran.out
    assert cert.loader.backends[0].closed


def test_a_response_is_scored(cert: Program) -> None:
    ran = cert("analyze", "Explain AI", "-m", "fake", "--response", "a model measures")
    (record,) = ran.records
    assert record["generation"]["finish_reason"] == "scored"
    assert record["generation"]["text"] == "a model measures"
    assert record["provenance"]["sampling"] is None


def test_a_deadline_ends_a_text_and_the_verdict_is_inconclusive(cert: Program) -> None:
    cert.loader.settings = {"token_s": 0.1, "logprob": -0.01}
    ran = cert("analyze", "Explain AI", "-m", "fake", "--timeout", "0.5", "--policy", "reference")
    assert ran.records[0]["generation"]["finish_reason"] == "timeout"
    assert ran.code == 3


@pytest.mark.parametrize("args", [("-",), ()])
def test_each_line_of_stdin_is_a_prompt(cert: Program, args: tuple[str, ...]) -> None:
    ran = cert("analyze", *args, "-m", "fake", stdin="one\n\ntwo\n")
    assert [one["prompt"]["text"] for one in ran.records] == ["one", "two"]
    assert "2" in ran.err or "passed" in ran.err


def test_files_are_read_by_their_extension(cert: Program, folder: Path) -> None:
    (folder / "a.txt").write_text("one\n")
    (folder / "b.jsonl").write_text(json.dumps({"prompt": "two", "id": "x"}) + "\n")
    ran = cert("analyze", "-f", "a.txt", "--file", "b.jsonl", "-m", "fake")
    assert [one["prompt"]["text"] for one in ran.records] == ["one", "two"]
    assert ran.records[1]["prompt"]["id"] == "x"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("prompt", "-f", "a.txt"), "a prompt and -f were both given"),
        (("-", "--response", "x"), "--response belongs to one prompt"),
        (("-f", "missing.txt"), "missing.txt"),
        (("-f", "."), "."),
        (("-f", "-", "-f", "-"), "only once"),
        (("x", "--policy", "no-such-policy"), "no-such-policy"),
        (("x", "--config", "missing.yaml"), "missing.yaml"),
        (("x", "--temperature", "-1"), "temperature"),
        (("x", "--top-p", "0"), "top_p"),
        (("x", "--max-new-tokens", "0"), "max_new_tokens"),
        (("x", "--timeout", "0"), "timeout"),
        (("x", "--seed", "-1"), "seed"),
        (("x", "-o", "missing/out.jsonl"), "missing/out.jsonl"),
        (("x", "-o", "xml:out"), "unknown format 'xml'"),
        (("x", "-o", "-"), "a file name is missing"),
        (("x", "-o", "jsonl:"), "a file name is missing"),
        (("x", "-o", "a", "-o", "human:./a"), "one output is given twice"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    cert: Program, folder: Path, args: tuple[str, ...], message: str
) -> None:
    (folder / "a.txt").write_text("one\n")
    ran = cert("analyze", *args, "-m", "fake", stdin="x\n")
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.startswith("cert: error: ")
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert cert.loader.calls == []


@pytest.mark.parametrize(
    "args",
    [
        ("--no-such-flag",),
        ("x", "--device", "tpu"),
        ("x", "--quantize", "2bit"),
        ("x", "--content", "hidden"),
        ("x", "--format", "xml"),
        ("x", "--seed", "many"),
        ("x", "y"),
    ],
)
def test_a_wrong_flag_is_a_usage_error(cert: Program, args: tuple[str, ...]) -> None:
    ran = cert("analyze", *args)
    assert ran.code == 2
    assert "Usage:" in ran.err
    assert ran.out == ""


def test_an_input_cannot_be_an_output(cert: Program, folder: Path) -> None:
    (folder / "a.txt").write_text("one\n")
    ran = cert("analyze", "-f", "a.txt", "-o", "a.txt", "-m", "fake")
    assert ran.code == 2
    assert "input and output at once" in ran.err
    assert (folder / "a.txt").read_text() == "one\n"


@pytest.mark.parametrize("prompt", ["", "  \n ", "a\ud800b"])
def test_a_prompt_that_is_none_is_refused_and_nothing_was_audited(
    cert: Program, prompt: str
) -> None:
    ran = cert("analyze", prompt, "-m", "fake")
    assert ran.code == 7
    assert ran.records[0]["kind"] == "refused"


def test_no_prompt_at_all_audits_nothing(cert: Program) -> None:
    ran = cert("analyze", "-", "-m", "fake", stdin="")
    assert (ran.code, ran.out) == (7, "")


def test_an_error_with_a_prompt_is_a_record_and_an_incomplete_run(cert: Program) -> None:
    cert.loader.settings = {"errors": {"bad": NumericalError("the logits are NaN")}}
    ran = cert("analyze", "-", "-m", "fake", "--policy", "reference", stdin="good\nbad\n")
    assert ran.code == 4
    assert [one["kind"] for one in ran.records] == ["analysis", "error"]
    assert ran.records[1]["error"]["message"] == "the logits are NaN"


@pytest.mark.parametrize(
    "error",
    [ModelUnavailableError("there is no such model", hint="look"), GPUOutOfMemoryError("x")],
)
def test_a_model_that_cannot_be_loaded_is_exit_code_6(cert: Program, error: Exception) -> None:
    cert.loader.errors = {"auto": error, "cpu": error}
    ran = cert("analyze", "x", "-m", "fake")
    assert (ran.code, ran.out) == (6, "")
    assert "cert: error: " in ran.err
    assert "Traceback" not in ran.err


def test_a_bug_is_exit_code_70_and_shows_its_traceback_only_when_asked(cert: Program) -> None:
    error = RuntimeError("boom sk-abcdefghijklmnop1234 \x1b]0;title\x07")
    cert.loader.errors = {"auto": error}
    ran = cert("analyze", "x", "-m", "fake")
    assert ran.code == 70
    assert "internal error: RuntimeError: boom" in ran.err
    assert "--debug" in ran.err
    assert "Traceback" not in ran.err
    assert "sk-abc" not in ran.err
    assert "\x1b" not in ran.err
    again = cert("analyze", "x", "-m", "fake", "--debug")
    assert again.code == 70
    assert "Traceback" in again.err


def test_records_are_appended_to_an_output_that_is_ours(cert: Program, folder: Path) -> None:
    out = folder / "out.jsonl"
    for prompt in ("one", "two"):
        ran = cert("analyze", prompt, "-m", "fake", "-o", "out.jsonl", "-q")
        assert records_of(out)[-1] == ran.records[0]
    with out.open("ab") as stream:
        stream.write(b'{"torn')
    ran = cert("analyze", "three", "-m", "fake", "-o", "jsonl:out.jsonl")
    assert [one["prompt"]["text"] for one in records_of(out)] == ["one", "two", "three"]
    assert "incomplete last line" in ran.err
    assert len(list(folder.glob("out.jsonl.torn-*"))) == 1


def test_an_output_that_is_not_ours_is_left_alone(cert: Program, folder: Path) -> None:
    (folder / "notes.txt").write_text("my notes\n")
    ran = cert("analyze", "x", "-m", "fake", "-o", "notes.txt")
    assert ran.code == 2
    assert "not a record of this program" in ran.err
    assert (folder / "notes.txt").read_text() == "my notes\n"


def test_preload_loads_before_the_input_is_looked_at(cert: Program) -> None:
    ran = cert("analyze", "-f", "missing.txt", "-m", "fake", "--preload")
    assert ran.code == 2
    assert len(cert.loader.calls) == 1
    assert cert("analyze", "x", "-m", "fake", "--no-preload", "-q").code in {0, 1}


def test_verbose_logs_go_to_stderr_only(cert: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cert("analyze", "x", "-m", "fake", "-v", "--log-format", "json")
    assert len(ran.records) == 1
    messages = [json.loads(line)["message"] for line in ran.err.splitlines() if line[0] == "{"]
    assert "model loaded" in messages
    assert "analysis finished" in messages
    monkeypatch.setenv("LOG_LEVEL", "INFO")
    assert "model loaded" in cert("analyze", "x", "-m", "fake").err
    assert "model loaded" not in cert("analyze", "x", "-m", "fake", "-q").err
    monkeypatch.delenv("LOG_LEVEL")
    assert "model loaded" not in cert("analyze", "x", "-m", "fake").err


def test_a_dry_run_runs_nothing(cert: Program, folder: Path, tiny: Path) -> None:
    ran = cert("analyze", "hello there", "-m", tiny, "--dry-run", "-o", "out.jsonl")
    assert ran.code == 0
    assert "argument: 1 prompts, 0 refused" in ran.out
    assert "parameters in the headers" in ran.out
    assert not (folder / "out.jsonl").exists()
    assert cert.loader.calls == []


_WITH_ITS_MODULES = """
import json, runpy, sys
sys.argv = ["cert", "analyze", "x", "--no-ledger", "--quiet", "--max-new-tokens", "3"]
try:
    runpy.run_module("cert_cli", run_name="__main__")
except SystemExit as ended:
    print(ended.code, file=sys.stderr)
print(json.dumps(list(sys.modules)), file=sys.stderr)
"""


def test_the_embedded_model_runs_without_transformers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITH_ITS_MODULES],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    code, modules = done.stderr.splitlines()
    assert code in {"0", "3"}
    assert "torch" in json.loads(modules)
    heavy = {"transformers", "accelerate", "huggingface_hub", "sympy", "torch._dynamo"}
    assert not heavy & set(json.loads(modules))
    record = json.loads(done.stdout)
    assert set(record["provenance"]["versions"]) == {"python", "torch", "tokenizers", "safetensors"}
    assert record["provenance"]["attention"] == "cert-sdpa"
