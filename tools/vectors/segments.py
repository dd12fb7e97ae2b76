"""Whole files: missing, renamed, added, taken from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.vectors.attack import A, Attack, B, C, newest_head, tweak
from tools.vectors.image import SEGMENTS, Image, Spot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def segment_attacks() -> Iterator[Attack]:
    """Whole files: missing, renamed, added, taken from elsewhere."""

    def on(  # noqa: PLR0913, PLR0917 - what an attack is made of
        name: str,
        about: str,
        change: Callable[[Image], Image],
        line: int | None,
        state: str = "invalid",
        spot: Spot | None = None,
    ) -> Attack:
        return Attack(
            name, about, lambda scene: change(scene.image), state, line, spot=spot, key="old"
        )

    empty = f"{SEGMENTS}000000000008.jsonl"
    yield on("first-segment-missing", "the first segment deleted", lambda one: one.drop(A), 1)
    yield on("middle-segment-missing", "the second segment deleted", lambda one: one.drop(B), 8)
    yield on("last-segment-missing", "the last segment deleted", lambda one: one.drop(C), 15)
    yield on("segments-missing", "all segments deleted", lambda one: one.drop(A, B, C), 1)
    yield on(
        "segment-renamed",
        "the last segment under another number",
        lambda one: one.rename(C, f"{SEGMENTS}000000000015.jsonl"),
        15,
    )
    yield on(
        "segments-swapped",
        "the second and the last segment under each other's name",
        lambda one: one.put(B, one.files[C]).put(C, one.files[B]),
        8,
    )
    yield on("first-segment-emptied", "the first segment empty", lambda one: one.put(A, b""), 1)
    yield on("ledger-emptied", "one segment, empty", lambda one: one.drop(B, C).put(A, b""), 1)
    yield on(
        "empty-segment-added",
        "an empty segment between two others",
        lambda one: one.put(empty, b""),
        15,
        spot=Spot("000000000008.jsonl", 0),
    )
    yield on(
        "empty-segment-at-the-end",
        "a segment that was just opened, as it may be",
        lambda one: one.put(f"{SEGMENTS}000000000020.jsonl", b""),
        None,
        "unanchored",
    )
    yield on(
        "misnamed-segment-at-the-end",
        "an empty segment of another number",
        lambda one: one.put(f"{SEGMENTS}000000000025.jsonl", b""),
        21,
    )
    yield on(
        "closed-segment-torn",
        "bytes after the last newline of a closed segment",
        lambda one: one.put(A, one.files[A] + b'{"_prev":'),
        8,
    )
    yield on(
        "closed-segment-torn-edited",
        "line 6 edited; of line 7, the last of its segment, the newline cut off: it states no link",
        lambda one: one.edit(6, tweak).put(A, one.edit(6, tweak).files[A][:-1]),
        7,
    )
    yield on(
        "torn",
        "an incomplete line at the end, as after a crash",
        lambda one: one.put(C, one.files[C] + b'{"_prev":'),
        21,
        "torn",
    )
    yield on(
        "nuls-at-the-end",
        "NULs at the end, as after a crash",
        lambda one: one.put(C, one.files[C] + bytes(100)),
        21,
        "torn",
    )
    yield on(
        "other-files",
        "files that are no evidence, as they may be",
        lambda one: one.put(f"{C}.torn-12-{64 * '0'}", b"x").put("runs/1.lock", b"").put("x", b"y"),
        None,
        "unanchored",
    )
    yield Attack(
        "splice-segment",
        "the last segment of another ledger of the same keys: line 16 links to line 15, so 14",
        lambda scene: scene.image.put(C, scene.other.files[C]),
        "invalid",
        14,
    )
    yield Attack(
        "splice-middle-segment",
        "the second segment of another ledger of the same keys",
        lambda scene: scene.image.put(B, scene.other.files[B]),
        "invalid",
        7,
        key="old",
    )
    yield Attack(
        "splice-ledger",
        "another whole ledger of the same keys: without a head nothing gives it away",
        lambda scene: scene.other,
        "unanchored",
    )
    yield Attack(
        "splice-ledger-head",
        "another whole ledger of the same keys; the head was kept",
        lambda scene: scene.other,
        "invalid",
        1,
        head=newest_head,
    )
