"""Checkpoints deleted, edited, moved; and heads that were kept elsewhere."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from tools.vectors.attack import Attack, newest_head, tweak
from tools.vectors.forge import Scene, chained, note, note_of, relinked
from tools.vectors.image import Image, Spot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cert.ledger.keys import Signer


def checkpoint_attacks() -> Iterator[Attack]:
    """Checkpoints deleted, edited, moved; those that stay are all at 7, 11, 14 and 20."""

    def on(
        name: str,
        about: str,
        change: Callable[[Image], Image],
        line: int | None,
        state: str = "invalid",
    ) -> Attack:
        return Attack(name, about, lambda scene: change(scene.image), state, line)

    def edit(size: int, change: Callable[[bytes], bytes]) -> Callable[[Image], Image]:
        return lambda image: image.put_note(size, change(image.note(size)))

    yield on(
        "checkpoint-deleted",
        "the newest checkpoint deleted: a signature is gone, no record",
        lambda one: one.drop_notes(only=20),
        15,
        "unsealed",
    )
    yield on(
        "older-checkpoint-deleted",
        "the first checkpoint deleted: the later ones cover its lines",
        lambda one: one.drop_notes(only=7),
        None,
        "unanchored",
    )
    yield on(
        "checkpoints-deleted",
        "all checkpoints deleted",
        lambda one: one.drop_notes(),
        1,
        "unsealed",
    )
    yield on(
        "checkpoints-and-last-line-deleted",
        "the last line and its checkpoint deleted: nothing tells it from a crash",
        lambda one: one.with_line(20).drop_notes(only=20),
        15,
        "unsealed",
    )
    yield on("checkpoint-edited", "another root in a checkpoint", edit(14, _with_other_root), 14)
    yield on(
        "checkpoint-of-another-size",
        "another size in a checkpoint",
        edit(14, lambda one: one.replace(b"\n14\n", b"\n13\n")),
        14,
    )
    yield on(
        "checkpoint-copied",
        "a checkpoint in the place of a later one",
        lambda one: one.put_note(14, one.note(11)),
        14,
    )
    yield on("checkpoint-emptied", "an empty checkpoint", edit(11, lambda _: b""), 11)
    yield on(
        "checkpoint-cut", "a checkpoint without its newline", edit(11, lambda one: one[:-1]), 11
    )
    yield on(
        "checkpoint-crlf",
        "a checkpoint with CRLF",
        edit(11, lambda one: one.replace(b"\n", b"\r\n")),
        11,
    )
    yield on(
        "checkpoint-extended",
        "a checkpoint with a line more",
        edit(11, lambda one: one.replace(b"\n\n", b"\nmore\n\n")),
        11,
    )
    yield on(
        "checkpoint-unsigned",
        "a checkpoint without a signature",
        edit(11, lambda one: one[: one.index(b"\n\n") + 2]),
        11,
    )
    yield on(
        "checkpoint-with-bad-signature",
        "a good signature, and a wrong one in the same key's name",
        edit(11, lambda one: one + _with_other_signature(one)),
        11,
    )
    yield Attack(
        "checkpoint-of-another-ledger",
        "a checkpoint of another ledger of the same keys",
        lambda scene: scene.image.put_note(14, scene.other.note(14)),
        "invalid",
        14,
    )
    yield Attack(
        "checkpoint-witnessed",
        "a checkpoint with a witness' signature, as it may be",
        lambda scene: scene.image.put_note(
            20, scene.image.note(20) + _witness(scene.image.note(20), scene.stranger)
        ),
        "unanchored",
    )
    yield Attack(
        "checkpoint-of-the-future",
        "a checkpoint of more records, by a stranger",
        lambda scene: scene.image.put_note(
            30, note_of(30 * scene.image.lines[:1], scene.origin, scene.stranger)
        ),
        "invalid",
        21,
    )
    yield Attack(
        "checkpoint-of-nothing",
        "a checkpoint of no records, which is never written",
        lambda scene: scene.image.put_note(0, note_of([], scene.origin, scene.old)),
        "invalid",
        1,
        spot=Spot(None, None),
    )


def _with_other_root(data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines[2] = base64.b64encode(bytes(32))
    return b"\n".join(lines)


def _with_other_signature(data: bytes) -> bytes:
    line = data.splitlines()[-1]
    start, _, code = line.rpartition(b" ")
    raw = base64.b64decode(code)
    return start + b" " + base64.b64encode(raw[:4] + bytes(64)) + b"\n"


def _witness(data: bytes, by: Signer) -> bytes:
    text = data[: data.index(b"\n\n") + 1]
    return f"— witness.example {base64.b64encode(b'wit1' + by.sign(text)).decode()}\n".encode()


def head_attacks() -> Iterator[Attack]:
    """What was kept elsewhere against what is there."""

    def with_head(  # noqa: PLR0913, PLR0917 - what an attack is made of
        name: str,
        about: str,
        head: Callable[[Scene], bytes],
        state: str | None,
        line: int | None = None,
        change: Callable[[Scene], Image] = lambda scene: scene.image,
    ) -> Attack:
        return Attack(name, about, change, state, line, head=head)

    def own(size: int, change: Callable[[bytes], bytes] | None = None) -> Callable[[Scene], bytes]:
        def head(scene: Scene) -> bytes:
            image = scene.image
            if change is not None:
                image = relinked(image.edit(size - 1, change), size - 1)
            return note_of(image.lines[:size], scene.origin, scene.new)

        return head

    yield Attack("genuine", "the genuine ledger", lambda scene: scene.image, "unanchored")
    yield Attack(
        "genuine-old-key",
        "the genuine ledger; the first key is pinned",
        lambda scene: scene.image,
        "unanchored",
        key="old",
    )
    yield Attack(
        "genuine-deep",
        "the genuine ledger, looked into",
        lambda scene: scene.image,
        "unanchored",
        deep=True,
    )
    yield Attack(
        "genuine-other-key",
        "the genuine ledger; another key is pinned",
        lambda scene: scene.image,
        "invalid",
        1,
        key="stranger",
    )
    yield with_head("head", "the genuine ledger and its head", newest_head, "valid")
    yield with_head(
        "head-grown",
        "the head is older, and the ledger has grown",
        lambda scene: scene.image.note(14),
        "valid",
    )
    yield with_head(
        "head-by-old-key",
        "the head was signed before the rotation",
        lambda scene: scene.image.note(7),
        "valid",
    )
    yield with_head("head-without-checkpoint", "the head is of a size in between", own(13), "valid")
    yield with_head(
        "head-contradicts",
        "the owner signed two histories; line 19 is another in the head",
        own(20, tweak),
        "rolled-back",
        15,
    )
    yield with_head(
        "head-contradicts-in-between",
        "the owner signed two histories; line 12 is another in the head",
        own(13, tweak),
        "rolled-back",
        12,
    )
    yield with_head(
        "head-of-more",
        "the head is of a longer history",
        lambda scene: note_of(chained(scene.image.lines, note(20)), scene.origin, scene.new),
        "rolled-back",
        21,
    )
    yield with_head(
        "head-of-another-ledger",
        "the head is another ledger's of the same keys",
        lambda scene: scene.other.note(20),
        "invalid",
        1,
    )
    yield with_head(
        "head-by-stranger",
        "the head was signed by a key that is none of the ledger's",
        lambda scene: note_of(scene.image.lines, scene.origin, scene.stranger),
        None,
    )
    yield with_head("head-malformed", "the head is no checkpoint", lambda _: b"20\n", None)
    yield with_head(
        "head-of-nothing",
        "the head is of no records and pins nothing",
        lambda scene: note_of([], scene.origin, scene.new),
        None,
    )
    yield with_head(
        "head-by-stranger-ledger-invalid",
        "the head was signed by a key that is none of the ledger's, whose line 5 was edited",
        lambda scene: note_of(scene.image.lines, scene.origin, scene.stranger),
        "invalid",
        5,
        change=lambda scene: scene.image.edit(5, tweak),
    )
