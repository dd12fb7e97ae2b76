"""Where records go: stdout and the files of -o."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError
from cert.runner.record_file import RecordFile
from cert_cli.options import OUTPUT_FORMATS
from cert_cli.stdout import write_stdout
from cert_cli.terminal import Style, is_live, style_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    Draw = Callable[[Style], str]


@dataclass(slots=True)
class Outputs:
    """The open outputs of one run.

    Attributes:
        stdout_style: None for JSON lines on stdout, else how to draw the human view.
        records: Files of JSON lines, locked.
        views: Files of the human view, locked.
        stdout_is_gone: Whether its reader went away; the files go on without it.
        has_ledger: Whether a ledger that was asked for takes the records, too.
    """

    stdout_style: Style | None
    records: list[RecordFile] = field(default_factory=list)
    views: list[RecordFile] = field(default_factory=list)
    stdout_is_gone: bool = False
    has_ledger: bool = False

    @property
    def has_sink(self) -> bool:
        """Whether anybody still takes the records."""
        return not self.stdout_is_gone or bool(self.records) or self.has_ledger

    @property
    def shares_terminal(self) -> bool:
        """Whether stdout is a terminal, on which a bar may stand too."""
        return is_live(sys.stdout)

    def write(self, line: bytes, draw: Draw | None) -> None:
        """Write a record everywhere: files first, since they are what is kept.

        Args:
            line: The record.
            draw: Its human view; None where it has none.

        Raises:
            OutputError: A file cannot be written, or stdout cannot and no file is there.
        """
        for file in self.records:
            file.write(line)
        if draw is not None:
            for file in self.views:
                file.write(draw(Style()).rstrip("\n").encode())
        if not self.stdout_is_gone:
            self.show(line, draw)

    def close(self) -> None:
        """Bring everything to the disk.

        Raises:
            OutputError: The disk failed.
        """
        for file in (*self.records, *self.views):
            file.close()

    def show(self, line: bytes, draw: Draw | None) -> None:
        """Write a record to stdout alone, for as long as it is read.

        Raises:
            OutputError: It cannot be written, for another reason.
        """
        if self.stdout_style is None:
            data = line + b"\n"
        elif draw is None:
            return
        else:
            text = draw(self.stdout_style)
            data = text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")
        try:
            write_stdout(data)
        except BrokenPipeError:
            self.stdout_is_gone = True


def open_outputs(
    specs: Sequence[str],
    stdout_format: str,
    *,
    color: bool | None,
    has_ledger: bool,
    stack: ExitStack,
) -> Outputs:
    """Open the outputs that were asked for, before anything costly begins.

    Raises:
        ConfigurationError: A file cannot be opened or is busy, two are the same one, or there is
            no stdout and no file either.
    """
    plan = [_parse(spec) for spec in specs]
    outputs = Outputs(_stdout_style(stdout_format, color=color), has_ledger=has_ledger)
    if len({os.path.abspath(path) for _, path in plan}) < len(plan):  # noqa: PTH100 - links stay
        raise ConfigurationError("one output is given twice", hint="give every -o another file")
    for kind, path in plan:
        file = stack.enter_context(RecordFile(path))
        (outputs.records if kind == "jsonl" else outputs.views).append(file)
    if sys.stdout is None:
        outputs.stdout_is_gone = True
        if not outputs.has_sink:
            raise ConfigurationError(
                "stdout is closed and there is no -o file: the records would be lost",
                hint="name a file with -o, or a ledger with --ledger",
            )
    return outputs


def check_apart(sources: Sequence[str], outputs: Outputs) -> None:
    """Refuse to write into what is being read.

    Raises:
        ConfigurationError: A source is one of the outputs.
    """
    ours = {file.identity() for file in (*outputs.records, *outputs.views)}
    for source in sources:
        if source == "-":
            continue
        try:
            status = os.stat(source)  # noqa: PTH116 - a source is a text; `./-x` must stay so
        except (OSError, ValueError):
            continue  # the reader says what is wrong with it
        if (status.st_dev, status.st_ino) in ours:
            raise ConfigurationError(
                f"{source} is input and output at once", hint="choose another file with -o"
            )


def _parse(spec: str) -> tuple[str, Path]:
    kind, colon, path = spec.partition(":")
    if not colon or kind not in OUTPUT_FORMATS:
        if colon and kind.isalpha() and not Path(spec).exists():
            raise ConfigurationError(
                f"-o {spec}: unknown format {kind!r}; known are {', '.join(OUTPUT_FORMATS)}",
                hint=f"a file of that name is written as -o ./{spec}",
            )
        kind, path = "jsonl", spec
    if path in {"", "-"}:
        raise ConfigurationError(
            f"-o {spec}: a file name is missing",
            hint="the records go to stdout anyway; --format chooses how",
        )
    return kind, Path(path)


def _stdout_style(stdout_format: str, *, color: bool | None) -> Style | None:
    stream = sys.stdout
    if stdout_format == "jsonl" or (stdout_format == "auto" and not is_live(stream)):
        return None
    return style_of(stream, color=color)
