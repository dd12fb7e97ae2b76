"""Whether stdin may be waited for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError
from cert_cli.errors import report
from cert_cli.terminal import is_live

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_stdin(sources: Sequence[str], *, no_input: bool, quiet: bool) -> None:
    """Look at stdin before it is read; somebody who has to type is told so.

    Raises:
        ConfigurationError: It is closed, or it is a terminal and `--no-input` was given.
    """
    if "-" not in sources:
        return
    if sys.stdin is None:
        raise ConfigurationError("stdin is closed", hint="give a file, or pipe prompts in")
    if not is_live(sys.stdin):
        return
    if no_input:
        raise ConfigurationError(
            "stdin is a terminal, and --no-input was given", hint="pipe prompts in, or give a file"
        )
    if not quiet:
        report("note: reading prompts from the terminal, one a line; Ctrl-D ends them")
