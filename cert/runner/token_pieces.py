"""Each token's share of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNDECIDED = "\ufffd"


def split_tokens(decode: Callable[[Sequence[int]], str], token_ids: Sequence[int]) -> list[str]:
    """Return each token's share of the text; joined they are the text that `decode` gives.

    A character of several tokens belongs to the last of them. Each step decodes only what
    surrounds the token, since decoding from the start every time takes quadratic time.
    """
    pieces: list[str] = []
    start = shown = 0
    for end in range(1, len(token_ids) + 1):
        before = decode(token_ids[start:shown])
        now = decode(token_ids[start:end])
        if now.endswith(_UNDECIDED) and end < len(token_ids):
            pieces.append("")
            continue
        pieces.append(now[len(before) :])
        start, shown = shown, end
    return pieces
