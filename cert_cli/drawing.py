"""Rich's drawing of parts as a text: no markup, no highlighting, nothing from the environment."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from cert_cli.terminal import Style


def console_of(style: Style) -> Console:
    """A console that draws into memory."""
    return Console(
        file=io.StringIO(),
        width=style.width,
        force_terminal=style.color,
        color_system="256" if style.color else None,
        no_color=not style.color,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def draw_parts(parts: Sequence[RenderableType], style: Style) -> str:
    """Draw parts under each other; texts are not wrapped."""
    console = console_of(style)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    written = console.file
    return written.getvalue() if isinstance(written, io.StringIO) else ""
