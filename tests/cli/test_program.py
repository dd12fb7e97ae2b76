"""The program as a whole: help, exit codes, schema, completion, and what it does not import."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import jsonschema
import pytest

from cert.core.config import CERTConfig
from cert.core.errors import (
    CertError,
    CircuitOpenError,
    ConfigurationError,
    CPUFallbackFailed,
    InvalidInput,
    MissingExtraError,
    ModelRefusedError,
    PolicyError,
)
from cert.runner.record_file import OutputError
from cert.runner.tally import ErrorBudget, Tally
from cert_cli.errors import code_of_error
from cert_cli.exit_codes import ExitCode, code_of_run
from cert_cli.options import SharedFlags
from tests.cli.helpers import ROOT, Processes, Program

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [
    "analyze",
    "batch",
    "coordinate",
    "health",
    "serve-metrics",
    "serve",
    "verify",
    "ledger",
    "keys",
    "bundle",
    "init",
    "config",
    "schema",
    "exit-codes",
    "completion",
]
HEAVY = ("torch", "transformers", "pydantic", "numpy", "tokenizers", "rich")


def test_help_lists_the_commands_there_are(cert: Program) -> None:
    ran = cert("--help")
    assert ran.code == 0
    listed = re.findall(r"^  ([a-z-]+)  ", ran.out.split("Commands:")[1], re.MULTILINE)
    assert listed == COMMANDS
    assert "completion" not in ran.out.split("Commands:")[0]


@pytest.mark.parametrize(
    "command",
    [
        *(
            "analyze",
            "batch",
            "coordinate",
            "serve",
            "serve-metrics",
            "health",
            "verify",
            "bundle",
            "schema",
            "exit-codes",
        ),
        "completion",
        *("ledger head", "ledger ls", "ledger note", "ledger prove", "ledger attest"),
        *("ledger erase", "ledger prune", "keys new", "keys show", "keys rotate", "config show"),
        *("init ci", "init cron", "init systemd"),
    ],
)
def test_every_help_has_examples_and_exit_codes(cert: Program, command: str) -> None:
    ran = cert(*command.split(), "--help")
    assert ran.code == 0
    assert "Examples:\n" in ran.out
    assert "Exit codes" in ran.out
    assert cert(*command.split(), "-h").out == ran.out


def test_defaults_named_in_the_help_are_the_defaults() -> None:
    import typing

    hints = typing.get_type_hints(SharedFlags, include_extras=True)
    defaults = CERTConfig()
    named = 0
    for name, hint in hints.items():
        option = hint.__metadata__[0]
        match = re.search(r"\[default: ([^`\]]+)\]", option.help or "")
        if match and name in CERTConfig.model_fields and name not in {"offline", "log_format"}:
            value = getattr(defaults, name)
            assert match[1] == (f"{value:g}" if isinstance(value, float) else str(value)), name
            named += 1
    assert named >= 9


def test_no_command_shows_the_help_as_a_usage_error(cert: Program) -> None:
    ran = cert()
    assert ran.code == 2
    assert "Commands:" in ran.err + ran.out


def test_a_mistyped_command_gets_a_suggestion(cert: Program) -> None:
    ran = cert("analyse", "x")
    assert ran.code == 2
    assert "analyze" in ran.err


def test_help_imports_nothing_heavy_and_is_fast(processes: Processes) -> None:
    code = (
        "import sys\nfrom cert_cli.app import app\n"
        "try:\n    app(['--help'], prog_name='cert')\nexcept SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=processes.environment(),
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_a_fraction_of_a_second_of_work(processes: Processes) -> None:
    # CPU time: wall time on a busy machine says nothing about the program.
    best = 10.0
    for _ in range(3):
        before = _children_s()
        assert processes.run("--help").code == 0
        best = min(best, _children_s() - before)
    assert best < 0.7  # 0.35 on a slow machine; torch alone would take 2


def _children_s() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_version(cert: Program) -> None:
    ran = cert("--version")
    assert ran.code == 0
    assert ran.out.startswith("cert ")


def test_exit_codes_are_those_of_the_contract(cert: Program) -> None:
    codes = {0, 1, 2, 3, 4, 5, 6, 7, 70, 130, 143}
    text = cert("exit-codes")
    assert {
        int(line.split()[0]) for line in text.out.splitlines() if line[:3].strip().isdigit()
    } == (codes)
    table = json.loads(cert("exit-codes", "--json").out)
    assert {int(code) for code in table} == codes
    assert table["4"]["meaning"] == "incomplete"
    assert all(one["when"] for one in table.values())


@pytest.mark.parametrize(
    ("tally", "budget", "code"),
    [
        (Tally(), ErrorBudget(), ExitCode.NOTHING),
        (Tally(refused=3), ErrorBudget(), ExitCode.NOTHING),
        (Tally(passed=1), ErrorBudget(), ExitCode.PASS),
        (Tally(passed=1, refused=1), ErrorBudget(), ExitCode.INCOMPLETE),
        (Tally(failed=1, inconclusive=1, errors=1), ErrorBudget(), ExitCode.INCOMPLETE),
        (Tally(failed=1, inconclusive=1, errors=1), ErrorBudget(1), ExitCode.FAILED),
        (Tally(passed=1, inconclusive=1), ErrorBudget(), ExitCode.INCONCLUSIVE),
        (Tally(errors=1), ErrorBudget(), ExitCode.INCOMPLETE),
        (Tally(errors=1), ErrorBudget(5), ExitCode.NOTHING),
    ],
)
def test_the_code_of_a_run(tally: Tally, budget: ErrorBudget, code: ExitCode) -> None:
    assert code_of_run(tally, budget) is code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), ExitCode.USAGE),
        (PolicyError("x"), ExitCode.USAGE),
        (InvalidInput("x"), ExitCode.USAGE),
        (ModelRefusedError("x"), ExitCode.UNAVAILABLE),
        (MissingExtraError("x"), ExitCode.UNAVAILABLE),
        (CPUFallbackFailed("x"), ExitCode.UNAVAILABLE),
        (OutputError("x"), ExitCode.INCOMPLETE),
        (CircuitOpenError("x"), ExitCode.BUG),
        (CertError("x"), ExitCode.BUG),
        (ValueError("x"), ExitCode.BUG),
    ],
)
def test_the_code_of_an_error(error: Exception, code: ExitCode) -> None:
    assert code_of_error(error) is code


def test_the_schema_is_a_schema(cert: Program) -> None:
    schema = json.loads(cert("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(cert: Program, shell: str) -> None:
    ran = cert("completion", shell)
    assert ran.code == 0
    assert "_CERT_COMPLETE" in ran.out
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=ran.out, text=True, check=True)


def test_another_shell_is_a_usage_error(cert: Program) -> None:
    assert cert("completion", "tcsh").code == 2


def test_what_the_completion_script_asks_for_is_answered(processes: Processes) -> None:
    asked = {"_CERT_COMPLETE": "complete_bash", "COMP_WORDS": "cert ba", "COMP_CWORD": "1"}
    assert processes.run(env=asked).out.split() == ["batch"]
    flags = {**asked, "COMP_WORDS": "cert batch --max-e", "COMP_CWORD": "2"}
    assert processes.run(env=flags).out.split() == ["--max-errors"]


def test_the_program_runs_as_a_module_from_anywhere(processes: Processes, folder: Path) -> None:
    started = time.monotonic()
    ran = processes.run("exit-codes", cwd=folder)
    assert ran.code == 0
    assert time.monotonic() - started < 30
    assert (ROOT / "cert_cli").is_dir()
