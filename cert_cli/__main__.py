"""The entry point: `cert`, and `python -m cert_cli`."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from cert_cli.start_up import collect_rarely, leave_memory


def main() -> None:
    """Run the program and end the process with its exit code."""
    collect_rarely()
    from cert_cli.app import app  # noqa: PLC0415 - imports make many objects, which all stay
    from cert_cli.commands.completion import COMPLETE_VARIABLE  # noqa: PLC0415 - the same

    if COMPLETE_VARIABLE in os.environ:
        import typer.completion  # noqa: PLC0415 - only while completing

        # Typer does this itself only for programs with its own completion flags.
        typer.completion.completion_init()  # type: ignore[attr-defined]
    code: int | str | None = 0
    try:
        app(prog_name="cert", complete_var=COMPLETE_VARIABLE)
    except SystemExit as end:
        code = end.code
    if any(thread.daemon for thread in threading.enumerate()):
        # A thread still reads stdin or imports torch, which an ordinary exit would wait for or
        # crash over. Files are closed; what remains is to hand out what is buffered.
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)
    leave_memory()
    sys.exit(code)


if __name__ == "__main__":
    main()
