"""What can be done to any line, done to each of the 20."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.vectors.attack import Attack, newest_head, tweak
from tools.vectors.forge import RECORDS, ROTATION_SEQ, SEALED, Scene, relinked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.vectors.image import Image


def line_attacks() -> Iterator[Attack]:
    """All of them."""
    for line in range(1, RECORDS + 1):
        yield from _on_line(line)
    for line in range(1, RECORDS):
        yield _swap(line)
    for left in range(RECORDS):
        yield from _cut_after(left)


def _on_line(line: int) -> Iterator[Attack]:
    def edited(scene: Scene) -> Image:
        return scene.image.edit(line, tweak)

    def rehashed(scene: Scene) -> Image:
        return relinked(edited(scene), line)

    def deleted(scene: Scene) -> Image:
        return scene.image.with_line(line)

    def shortened(scene: Scene) -> Image:
        return relinked(deleted(scene), max(line - 1, 1))

    def doubled(scene: Scene) -> Image:
        raw = scene.image.chunks[line - 1].raw
        return scene.image.with_line(line, raw, raw)

    def spliced(scene: Scene) -> Image:
        return scene.image.with_line(line, scene.other.chunks[line - 1].raw)

    bad = "invalid"
    yield Attack(f"edit-{line}", f"line {line} edited", edited, bad, line)
    yield Attack(
        f"rehash-{line}",
        f"line {line} edited, and every later link made to fit",
        rehashed,
        bad,
        _first_of_rehashed(line),
        key="old",
    )
    yield Attack(f"delete-{line}", f"line {line} deleted", deleted, bad, line)
    yield Attack(
        f"shorten-{line}",
        f"line {line} deleted, every later one numbered and linked anew",
        shortened,
        bad,
        _first_of_shortened(line),
        key="old",
    )
    yield Attack(f"double-{line}", f"line {line} twice", doubled, bad, line + 1)
    yield Attack(
        f"splice-{line}",
        f"line {line} taken from another ledger of the same keys",
        spliced,
        bad,
        line,
    )


def _first_of_rehashed(line: int) -> int:
    """Rule R: the line after the last good checkpoint; the last one where the tail tells.

    A rotation is signed over its link, so a chain that was changed before it breaks there.
    """
    if SEALED[0] < line <= ROTATION_SEQ:
        return ROTATION_SEQ + 1
    if line > SEALED[-2]:
        return RECORDS
    return max(size for size in (0, *SEALED) if size < line) + 1


def _first_of_shortened(line: int) -> int:
    """Where it shows that a line is missing.

    The segments B and C begin one record earlier than their names say, which is at lines 7 and 14;
    the rotation is signed over its number; and the last checkpoint covers more lines than are left.
    """
    if line == 1:
        return 1
    if line <= SEALED[0]:
        return SEALED[0]
    if line <= ROTATION_SEQ:
        return ROTATION_SEQ
    if line == ROTATION_SEQ + 1:
        return line
    return SEALED[2] if line <= SEALED[2] else RECORDS


def _swap(line: int) -> Attack:
    def swapped(scene: Scene) -> Image:
        chunks = scene.image.chunks
        first, second = chunks[line - 1 : line + 1]
        chunks[line - 1] = first._replace(raw=second.raw)
        chunks[line] = second._replace(raw=first.raw)
        return scene.image.with_chunks(chunks)

    about = f"lines {line} and {line + 1} swapped"
    return Attack(f"swap-{line}", about, swapped, "invalid", line)


def _cut_after(left: int) -> Iterator[Attack]:
    """Truncation at a line's end, with the checkpoints left and with them taken back."""

    def cut(scene: Scene) -> Image:
        return scene.image.truncate(sum(len(one.raw) for one in scene.image.chunks[:left]))

    def rolled_back(scene: Scene) -> Image:
        return cut(scene).drop_notes(above=left)

    is_newer = left > ROTATION_SEQ
    about = f"all after {left} lines cut off"
    yield Attack(f"truncate-{left}", about, cut, "invalid", left + 1)
    about += ", checkpoints and all"
    yield Attack(
        f"rollback-{left}-head",
        f"{about}; the head was kept",
        rolled_back,
        "rolled-back" if is_newer else "invalid",
        left + 1 if is_newer else 1,  # the pinned key is of later
        head=newest_head,
    )
    sealed = max(size for size in (0, *SEALED) if size <= left)
    state, first = "unsealed", sealed + 1
    if not left:
        state = "invalid"
    elif sealed == left:
        about += ": nothing in the ledger gives it away"
        state, first = "unanchored", None
    key = "new" if is_newer else "old"
    yield Attack(f"rollback-{left}", about, rolled_back, state, first, key=key)
