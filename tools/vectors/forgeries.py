"""Records, rotations and whole ledgers by somebody who has not the key in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.ledger.canonical import parse_canonical
from cert.ledger.line import join_links, leaf_hash
from tools.vectors.attack import Attack, tweak
from tools.vectors.forge import (
    FIRSTS,
    RECORDS,
    Scene,
    chained,
    genesis,
    genuine,
    image_of,
    note,
    re_encoded,
    record,
    relinked,
    rotation,
    signer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.vectors.image import Image


def forged_records() -> Iterator[Attack]:
    """Records added by somebody who has no key."""

    def add(*bodies: bytes) -> Callable[[Scene], Image]:
        return lambda scene: scene.image.append(*chained(scene.image.lines, *bodies)[RECORDS:])

    def link(prev: Callable[[Scene], bytes], seq: int = RECORDS) -> Callable[[Scene], Image]:
        return lambda scene: scene.image.append(join_links(prev(scene), seq, note(seq)))

    def end(scene: Scene) -> bytes:
        return leaf_hash(scene.image.lines[-1])

    bad = "invalid"
    yield Attack("append", "a forged record, linked rightly", add(note(20)), "unsealed", 21)
    yield Attack("append-wrong-link", "a forged record", link(lambda _: bytes(32)), bad, 21)
    yield Attack("append-wrong-number", "a forged record of another number", link(end, 21), bad, 21)
    yield Attack("append-old-number", "a forged record of a number again", link(end, 19), bad, 21)
    yield Attack(
        "append-genesis", "a second genesis", add(record("genesis", 20, ledger={})), bad, 21
    )
    yield Attack(
        "append-sealed-by-stranger",
        "a forged record, and a checkpoint by a key that is none of the ledger's",
        lambda scene: _sealed_on(scene, add(note(20))(scene)),
        bad,
        21,
    )
    yield Attack(
        "append-sealed-by-copy",
        "a forged record, and the last checkpoint under its size",
        lambda scene: add(note(20))(scene).put_note(21, scene.image.note(20)),
        bad,
        21,
    )


def _sealed_on(scene: Scene, image: Image) -> Image:
    lines = image.lines
    return image.put_note(len(lines), scene.sign(lines, scene.stranger))


def rewritten_ledgers() -> Iterator[Attack]:
    """Everything written anew by somebody who has not the key, or not the one in force."""
    bad = "invalid"
    yield Attack(
        "rewrite",
        "line 2 edited, every link made to fit, checkpoints deleted: the rotation breaks",
        lambda scene: relinked(scene.image.edit(2, tweak), 2).drop_notes(),
        bad,
        11,
        key="old",
    )
    yield Attack(
        "rewrite-without-rotation",
        "all but the genesis written anew, without rotation and checkpoints",
        _invented,
        "unsealed",
        1,
        key="old",
    )
    yield Attack(
        "rewrite-without-rotation-new-key",
        "the same; the newest key is pinned, as it should be",
        _invented,
        bad,
        1,
    )
    yield Attack(
        "reseal-by-stranger",
        "every checkpoint signed anew by another key",
        lambda scene: scene.reseal(scene.image, scene.stranger_at),
        bad,
        7,
    )
    yield Attack(
        "rewrite-resealed-by-stranger",
        "line 2 edited, every link made to fit, every checkpoint signed by another key",
        lambda scene: scene.reseal(relinked(scene.image.edit(2, tweak), 2), scene.stranger_at),
        bad,
        7,
        key="old",
    )
    yield Attack(
        "counterfeit",
        "a flawless ledger of the same name by another key",
        lambda scene: genuine(scene.origin, scene.stranger, signer("accomplice")),
        bad,
        1,
    )
    yield Attack(
        "counterfeit-key-trusted",
        "the same, and the key that came with it is trusted: why it must not be",
        lambda scene: genuine(scene.origin, scene.stranger, signer("accomplice")),
        "unanchored",
        key="stranger",
    )
    yield Attack(
        "counterfeit-genesis",
        "a genesis of another key before the genuine records",
        lambda scene: scene.image.with_line(1, genesis(scene.origin, scene.stranger) + b"\n"),
        bad,
        1,
    )
    yield Attack(
        "old-key-history",
        "another history by the old key, without the rotation",
        _by_old_key,
        bad,
        1,
    )
    yield Attack(
        "old-key-history-old-key",
        "the same, and the old key is pinned: why the newest should be",
        _by_old_key,
        "unanchored",
        key="old",
    )


def _invented(scene: Scene) -> Image:
    lines = chained(scene.image.lines[:1], *(note(seq, "invented") for seq in range(1, RECORDS)))
    return image_of(lines, FIRSTS, {})


def _by_old_key(scene: Scene) -> Image:
    lines = chained(scene.image.lines[:1], *(note(seq, "invented") for seq in range(1, RECORDS)))
    notes = {size: scene.sign(lines[:size], scene.old) for size in (7, RECORDS)}
    return image_of(lines, FIRSTS, notes)


def rotation_attacks() -> Iterator[Attack]:
    """Rotations: forged, replayed, by a key that is out of force, to itself."""

    def add(
        name: str, about: str, line_of: Callable[[Scene], bytes], by: str = "stranger"
    ) -> Attack:
        def change(scene: Scene) -> Image:
            image = scene.image.append(line_of(scene))
            return image.put_note(21, scene.sign(image.lines, getattr(scene, by)))

        return Attack(name, about, change, "invalid", 21)

    def by(old: str) -> Callable[[Scene], bytes]:
        return lambda one: rotation(one.image.lines, one.origin, getattr(one, old), one.stranger)

    def to_itself(scene: Scene) -> bytes:
        return rotation(scene.image.lines, scene.origin, scene.new, scene.new)

    def replayed(scene: Scene) -> bytes:
        line = scene.image.lines[10]
        return chained(scene.image.lines, b"{" + line[line.index(b'"clock"') :])[-1]

    yield add("rotation-forged", "a rotation signed by its new key alone", _forged_rotation)
    yield add("rotation-by-stranger", "a rotation from a key that is not in force", by("stranger"))
    yield add("rotation-by-old-key", "a rotation from a key that was in force", by("old"))
    yield add("rotation-replayed", "the ledger's own rotation at another place", replayed, "new")
    yield add("rotation-to-itself", "a rotation from a key to itself", to_itself, "new")
    yield add(
        "rotation-of-another-ledger",
        "a rotation that the owner signed for another ledger",
        lambda one: rotation(one.image.lines, "example.org/another", one.new, one.stranger),
    )
    yield add(
        "rotation-of-another-place",
        "a rotation that the owner signed for another record",
        lambda one: re_encoded(
            rotation(one.other.lines, one.origin, one.new, one.stranger),
            _prev=leaf_hash(one.image.lines[-1]).hex(),
        ),
    )
    yield Attack(
        "rotation-deleted",
        "the rotation deleted, the newest key is pinned",
        lambda scene: scene.image.with_line(11),
        "invalid",
        11,
    )
    yield Attack(
        "rotation-hidden",
        "the rotation is no control record any more: another key comes first",
        lambda scene: scene.image.edit(11, lambda line: line.replace(b'"clock"', b'"a":1,"clock"')),
        "invalid",
        11,
        key="old",
    )
    yield Attack(
        "sealed-by-old-key",
        "the last checkpoint by the key that is out of force",
        lambda scene: scene.image.put_note(20, scene.sign(scene.image.lines, scene.old)),
        "invalid",
        20,
    )
    yield Attack(
        "sealed-by-new-key",
        "the first checkpoint by the key that was not in force yet",
        lambda scene: scene.image.put_note(7, scene.sign(scene.image.lines[:7], scene.new)),
        "invalid",
        7,
    )
    yield Attack(
        "lineage-truncated",
        "everything from before the rotation on is gone, checkpoints and all",
        lambda scene: scene.image.truncate(
            sum(len(one.raw) for one in scene.image.chunks[:7])
        ).drop_notes(above=7),
        "invalid",
        1,
    )
    yield Attack(
        "lineage-truncated-old-key",
        "everything after line 8 is gone; the old key is pinned and signed no later checkpoint",
        lambda scene: scene.image.truncate(sum(len(one.raw) for one in scene.image.chunks[:8])),
        "invalid",
        9,
        key="old",
    )


def _forged_rotation(scene: Scene) -> bytes:
    line = rotation(scene.image.lines, scene.origin, scene.new, scene.stranger)
    member = parse_canonical(line)["key"]
    if not isinstance(member, dict):
        raise TypeError("no rotation")
    return re_encoded(line, key={**member, "signature": member["proof"]})
