"""`--textfile`: how a run ended, for node_exporter's textfile collector.

    cert_run_last_timestamp_seconds{textfile, command}           its end
    cert_run_last_success_timestamp_seconds{textfile, command}   the last end with exit code 0
    cert_run_last_exit_code{textfile, command}
    cert_run_last_duration_seconds{textfile, command}
    cert_run_last_records{textfile, command, outcome}            of this run

The label `textfile` is the file's own name, so that the files of several jobs are apart:
node_exporter refuses series that two files have in common. The mode is 0644, because node_exporter
runs as another user; nothing in the file is more than these numbers.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import typer

from cert_cli.errors import report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cert.runner.tally import Tally

MODE: Final = 0o644
_SUFFIX: Final = ".prom"
_MAX_BYTES: Final = 1 << 16
_LAST_SUCCESS: Final = "cert_run_last_success_timestamp_seconds"
_VALUE: Final = re.compile(rf"^{_LAST_SUCCESS}{{[^}}]*}} ([0-9.e+]{{1,30}})$", re.MULTILINE)
_HELP: Final = {
    "cert_run_last_timestamp_seconds": "The last run's end.",
    _LAST_SUCCESS: "The last end with exit code 0.",
    "cert_run_last_exit_code": "Of the last run.",
    "cert_run_last_duration_seconds": "From start to end of the last run.",
    "cert_run_last_records": "Records of the last run.",
}

_tally: ContextVar[Tally | None] = ContextVar("cert_textfile_tally", default=None)


def count_with(tally: Tally) -> None:
    """Take the counts of the run in progress from here when it ends."""
    _tally.set(tally)


def check_textfile(path: Path) -> None:
    """Refuse what cannot become such a file, before anything is done.

    Raises:
        ConfigurationError: The name has another ending, or the folder is not there.
    """
    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help

    problem = _problem(path)
    if problem is not None:
        raise ConfigurationError(
            f"--textfile {path}: {problem}",
            hint="name FILE.prom in the folder of node_exporter's --collector.textfile.directory",
        )


def _problem(path: Path) -> str | None:
    if path.suffix != _SUFFIX:
        return f"node_exporter reads files that end in {_SUFFIX}"
    if not path.parent.is_dir():
        return f"the folder {path.parent} is not there"
    return None


@contextmanager
def written_at_end(path: Path, command: str) -> Iterator[None]:
    """Write the file when the command inside ends, however it ends but by SIGKILL.

    What cannot be written is a warning: the run was what it was.
    """
    token, began_s = _tally.set(None), time.monotonic()
    try:
        yield
    except typer.Exit as ended:
        if _problem(path) is None:
            try:
                _replace(
                    path, _build(path, command, int(ended.exit_code), time.monotonic() - began_s)
                )
            except OSError as error:
                report(f"warning: --textfile {path} cannot be written: {error.strerror}")
        raise
    finally:
        _tally.reset(token)


def _build(path: Path, command: str, code: int, duration_s: float) -> bytes:
    now = time.time()
    base = {"textfile": re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)[:64], "command": command}
    rows: list[tuple[str, dict[str, str], float]] = [
        ("cert_run_last_timestamp_seconds", base, now),
        ("cert_run_last_exit_code", base, code),
        ("cert_run_last_duration_seconds", base, duration_s),
    ]
    success = now if code == 0 else _last_success(path)
    if success is not None:
        rows.append((_LAST_SUCCESS, base, success))
    tally = _tally.get()
    for outcome in ("passed", "failed", "inconclusive", "errors", "refused"):
        count = 0 if tally is None else getattr(tally, outcome)
        rows.append(("cert_run_last_records", {**base, "outcome": outcome}, count))
    lines, described = [], set()
    for name, labels, value in rows:
        if name not in described:
            described.add(name)
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
        inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value!r}")
    return ("\n".join(lines) + "\n").encode()


def _last_success(path: Path) -> float | None:
    """What the file said before; None where it said nothing, or is none of ours."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        text = os.read(fd, _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
    found = _VALUE.search(text)
    with suppress(ValueError):
        return None if found is None else float(found[1])
    return None


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, MODE)  # whatever the umask is
            file.write(data)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
