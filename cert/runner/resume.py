"""Continuing an output: its records are walked in lock-step with the input that made them.

A record per input line, in input order: so what is there must be a prefix of what is to come, line
for line, made by the same model, policy and sampling parameters. Anything else is refused rather
than guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from cert.core.errors import CertError, ConfigurationError
from cert.inputs.case import RefusedInput
from cert.inputs.ids import is_content_id, place_id
from cert.ledger.canonical import parse_canonical
from cert.observability.controls import escape_controls
from cert.runner.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cert.inputs.case import PromptCase
    from cert.runner.record_file import RecordFile

_FIRST_BYTES = b'{"'
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Expected:
    """What every record of an output must have been made with.

    Attributes:
        policy_digest: Of the policy in force.
        sampling: As records write it; a seed of None stands for any seed that was drawn.
        content: `full`, `committed` or `omitted`: whether prompts stand in the records.
    """

    policy_digest: str
    sampling: Mapping[str, object]
    content: str


@dataclass(slots=True)
class Resumed:
    """What an output holds already.

    Attributes:
        tally: Its records, counted.
        model_digest: Of the model that made them; None where no record names one.
        torn: Copies of incomplete last lines, which were cut off.
        completed: Outputs that were behind the others and were brought level.
    """

    tally: Tally = field(default_factory=Tally)
    model_digest: str | None = None
    torn: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)


class Recorded(Protocol):
    """Records that are there already: an output, or a run in a ledger."""

    @property
    def path(self) -> object:
        """Names them in messages."""

    def lines(self) -> Iterator[bytes]:
        """Yield them in order."""


def resume(
    files: Sequence[RecordFile],
    cases: Iterator[PromptCase | RefusedInput],
    expected: Expected,
    run: Recorded | None = None,
) -> Resumed:
    """Advance the input past what is recorded, and make the outputs end alike.

    Args:
        files: Outputs of one run: the shorter ones are beginnings of the longest.
        cases: The input from its first line; afterwards it stands at the first line without
            a record.
        expected: What the records must have been made with.
        run: The run in a ledger that is continued; all outputs are beginnings of it.

    Raises:
        ConfigurationError: An output is of another input or of other settings, or is not ours.
        OutputError: An output cannot be read or repaired.
    """
    resumed = Resumed()
    source = run or max(files, key=lambda file: file.complete_bytes, default=None)
    if source is None:
        return resumed
    count = 0
    for count, line in enumerate(source.lines(), start=1):
        where = f"{source.path}:{count}"
        record = _parse(line, where)
        _check_line(record, next(cases, None), expected, where)
        _compare_model(record, resumed, where)
        resumed.tally.add(record)
    behind = {}
    for file in files:
        _check_torn_end(file)
        behind[file.path] = count_common(file, source)
        if behind[file.path] is None:
            raise _mismatch(str(file.path), f"it differs from {source.path}")
    for file in files:
        copy = file.cut_torn_end()
        if copy is not None:
            resumed.torn.append(str(copy))
    for file in files:
        start = behind[file.path]
        if start is not None and start < count:
            for line in islice(source.lines(), start, None):
                file.write(line)
            resumed.completed.append(str(file.path))
    return resumed


def find_difference(
    record: Mapping[str, Any], case: PromptCase | RefusedInput, expected: Expected
) -> str | None:
    """Say why a record is not that of a line of input; None if it may be.

    Args:
        record: Of kind analysis, error or refused.
        case: The line of input.
        expected: What it must have been made with.
    """
    if isinstance(case, RefusedInput):
        found = record.get("input", {}) if record["kind"] == "refused" else None
        if found is None or found.get("line") != case.line:
            return f"line {case.line} of the input is refused"
        return None
    prompt = record.get("prompt", {})
    wanted = case.id
    if expected.content != "full" and is_content_id(case.id, case.text, case.response):
        wanted = place_id(case.source, case.line)
    if prompt.get("id") != wanted:
        return f"the input has the id {escape_controls(wanted)[:_SHOWN_CHARS]} here"
    if "text" in prompt and prompt["text"] != case.text:
        return "the input has another prompt under the same id"
    return _find_other_settings(record, case, expected) if record["kind"] == "analysis" else None


def _find_other_settings(
    record: Mapping[str, Any], case: PromptCase, expected: Expected
) -> str | None:
    if record["assessment"].get("policy", {}).get("digest") != expected.policy_digest:
        return "another policy judged"
    if record.get("content") != expected.content:
        return f"its content is not `{expected.content}`"
    generation = record.get("generation", {})
    is_scored = generation.get("finish_reason") == "scored"
    if is_scored != (case.response is not None):
        return "one is generated, the other a given response"
    if is_scored:
        has_other = generation.get("text", case.response) != case.response
        return "the input has another response under the same id" if has_other else None
    sampling = record.get("provenance", {}).get("sampling") or {}
    for name, value in expected.sampling.items():
        if value != sampling.get(name) and not (name == "seed" and value is None):
            return f"{name} was {sampling.get(name)!r}, now it is {value!r}"
    return None


def count_common(file: Recorded, source: Recorded) -> int | None:
    """Count the lines of an output; None where it is no beginning of another."""
    count = 0
    for mine, theirs in zip_longest(file.lines(), source.lines()):
        if mine is None:
            break
        if mine != theirs:
            return None
        count += 1
    return count


def check_model(resumed: Resumed, digest: str, where: str) -> None:
    """Compare the model that is loaded with the one that made the records so far.

    Raises:
        ConfigurationError: They differ.
    """
    if resumed.model_digest not in {None, digest}:
        raise _mismatch(where, f"its model is {resumed.model_digest}, this one is {digest}")


def prepare_append(file: RecordFile) -> str | None:
    """Make an output ready for records of any input: look at its end, set a torn one aside.

    Returns:
        Where the torn end was copied to; None where there was none.

    Raises:
        ConfigurationError: It does not end with one of our records.
    """
    last = file.last_line()
    if last is not None:
        _parse(last, f"{file.path}, last line")
    _check_torn_end(file)
    copy = file.cut_torn_end()
    return None if copy is None else str(copy)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = parse_canonical(line)
        Tally().add(record)
    except (CertError, ValueError) as error:
        raise ConfigurationError(
            f"{where} is not a record of this program: {escape_controls(str(error))[:200]}",
            hint="write to another file with -o",
        ) from error
    return record


def _check_line(
    record: Mapping[str, Any],
    case: PromptCase | RefusedInput | None,
    expected: Expected,
    where: str,
) -> None:
    if case is None:
        raise _mismatch(where, "the input ends before it")
    if (difference := find_difference(record, case, expected)) is not None:
        raise _mismatch(where, difference)


def _compare_model(record: Mapping[str, Any], resumed: Resumed, where: str) -> None:
    digest = (record.get("provenance") or {}).get("model", {}).get("digest")
    if digest is None:
        return
    if resumed.model_digest not in {None, digest}:
        raise _mismatch(where, "its records are of several models")
    resumed.model_digest = digest


def _check_torn_end(file: RecordFile) -> None:
    """Whatever follows a verified record is ours; a file of a torn line alone must look so."""
    start = file.tail(len(_FIRST_BYTES))
    if file.complete_bytes == 0 and start != _FIRST_BYTES[: len(start)]:
        raise ConfigurationError(
            f"output {file.path} holds something else than records",
            hint="write to another file with -o",
        )


def _mismatch(where: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"this output belongs to another input or settings: {where}: {reason}",
        hint="run the command that made it, or write to another file with -o",
    )
