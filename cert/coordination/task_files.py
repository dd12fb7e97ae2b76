r"""Tasks from JSON Lines or CSV, read with the rules of `cert.inputs`.

    {"id": "km", "group": "units", "prompt": "How many metres are 3 km?", "label": "3000",
     "evaluator": {"name": "numeric", "unit": "m"}}

`label` is the expected answer. `evaluator` is the name of one (`"exact"`) or an object with its
parameters; in a CSV, the cell holds the name or the object as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from cert.coordination.evaluator_parameters import Exact, Numeric, Parameters, TokenF1
from cert.coordination.tasks import Task
from cert.core.errors import ConfigurationError, InvalidInput, PromptTooLong
from cert.inputs.case import RefusedInput
from cert.inputs.csv_rows import CsvTable
from cert.inputs.ids import IdIndex
from cert.inputs.jsonl_rows import parse_object
from cert.inputs.lines import split_pieces
from cert.inputs.options import ReadOptions
from cert.inputs.rows import Row, build_row, decode_utf8, refuse
from cert.inputs.sources import Source, check_head, open_source, resolve_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_TASKS = 100_000
_EVALUATOR = "evaluator"


@dataclass(frozen=True, slots=True)
class TaskSet:
    """What came of reading tasks.

    Attributes:
        tasks: In the order of the input, each id once.
        refused: Lines that are no task, with their reason.
    """

    tasks: tuple[Task, ...]
    refused: tuple[RefusedInput, ...]


def load_tasks(sources: Sequence[str], *, input_format: str = "auto") -> TaskSet:
    """Read tasks from files and stdin (`-`).

    Args:
        sources: Paths.
        input_format: `jsonl`, `csv`, or `auto` for what the extension says.

    Raises:
        ConfigurationError: A source is missing, cannot be read or has another format; two tasks
            have the same id (the message names both lines); there are more than `MAX_TASKS`.
    """
    tasks: list[Task] = []
    refused: list[RefusedInput] = []
    with IdIndex() as index:
        for path in sources:
            with open_source(path) as source:
                for item in _read(path, source, input_format):
                    if isinstance(item, RefusedInput):
                        refused.append(item)
                        continue
                    first = index.claim(item.id, item.source, item.line)
                    if first is not None:
                        raise ConfigurationError(
                            f"the id of {item.source}:{item.line} is that of "
                            f"{first[0]}:{first[1]} already: {item.id!r}",
                            hint="every task needs an id of its own",
                        )
                    tasks.append(item)
                    if len(tasks) > MAX_TASKS:
                        raise ConfigurationError(f"more than {MAX_TASKS:,} tasks")
    return TaskSet(tuple(tasks), tuple(refused))


def _read(path: str, source: Source, input_format: str) -> Iterator[Task | RefusedInput]:
    kind = resolve_format(path, input_format, seems_json=source.seems_json)
    if kind not in {"jsonl", "csv"}:
        raise ConfigurationError(
            f"{source.name}: tasks are read from JSON Lines and CSV, not from {kind}",
            hint="name it .jsonl or .csv",
        )
    try:
        check_head(source.head, kind)
    except InvalidInput as error:
        yield refuse(source.name, 1, error)
        return
    yield from _read_csv(path, source) if kind == "csv" else _read_jsonl(source)


def _read_jsonl(source: Source) -> Iterator[Task | RefusedInput]:
    options = ReadOptions()
    for line, data in split_pieces(source.read, limit_bytes=options.max_record_bytes):
        if data is not None and not data.strip(b" \t\r"):
            continue
        try:
            if data is None:
                raise PromptTooLong(f"longer than {options.max_record_bytes:,} bytes")
            values = parse_object(decode_utf8(data))
            task = _build(build_row(values, line, options), values.get(_EVALUATOR), source.name)
        except InvalidInput as error:
            yield refuse(source.name, line, error)
        else:
            yield task


def _read_csv(path: str, source: Source) -> Iterator[Task | RefusedInput]:
    # A table knows the columns of its options only; the evaluator takes the place of a response,
    # which a task has none of.
    options = ReadOptions(response_field=_EVALUATOR)
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    for row in CsvTable(source.read, source.name, options, delimiter=delimiter).rows():
        if isinstance(row, RefusedInput):
            yield replace(row, message=row.message.replace("the response", "the evaluator", 1))
            continue
        cell = row.response or ""
        try:
            evaluator = parse_object(cell) if cell.lstrip().startswith("{") else cell.strip()
            task = _build(row, evaluator, source.name)
        except InvalidInput as error:
            yield refuse(source.name, row.line, error)
        else:
            yield task


def _build(row: Row, evaluator: object, source: str) -> Task:
    if row.id is None:
        raise InvalidInput("there is no id")
    given = {"name": evaluator} if isinstance(evaluator, str) else evaluator
    if given is None:
        raise InvalidInput("there is no evaluator")
    try:
        parameters: Parameters = msgspec.convert(given, Parameters)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the evaluator: {error}"[:300]) from None
    accepted = parameters.accept if isinstance(parameters, Exact | Numeric | TokenF1) else ()
    return Task(
        id=row.id,
        group_id=row.group or row.id,
        prompt=row.prompt,
        evaluator=parameters,
        expected=(*(() if row.label is None else (row.label,)), *accepted),
        source=source,
        line=row.line,
    )
