"""What stands for removed records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.vectors.attack import A, Attack, B, C, newest_head, tweak
from tools.vectors.forge import (
    FIRSTS,
    RECORDS,
    ROTATION_SEQ,
    Scene,
    chained,
    genesis,
    note,
    note_of,
    pruned,
    pruned_part,
    pruning,
    with_member,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.vectors.image import Image


PRUNED = "pruned.json"
SIZE = FIRSTS[2]


def pruned_attacks() -> Iterator[Attack]:
    """The ledger without its first 14 records; the genesis and the rotation are kept."""

    def on(  # noqa: PLR0913, PLR0917 - what an attack is made of
        name: str,
        about: str,
        change: Callable[[Image], Image],
        line: int | None = 1,
        state: str | None = "invalid",
        head: Callable[[Scene], bytes] | None = None,
    ) -> Attack:
        return Attack(
            f"pruned-{name}",
            about,
            lambda scene: change(pruned(scene.accounted)),
            state,
            line,
            head,
        )

    def stub(name: str, about: str, change: Callable[[bytes], bytes], line: int = 1) -> Attack:
        return on(name, about, lambda one: one.put(PRUNED, change(one.files[PRUNED])), line)

    def member(name: str, value: object) -> Callable[[bytes], bytes]:
        return lambda data: with_member(data, name, value)

    same: Callable[[Image], Image] = lambda one: one  # noqa: E731 - the change that is none
    head, at_7 = (lambda scene: scene.accounted.note(20)), (lambda scene: scene.accounted.note(7))
    yield on("genuine", "the pruned ledger", same, None, "unanchored")
    yield on("head", "the pruned ledger and its head", same, None, "valid", head)
    yield on("head-inside", "the head is of the removed part", same, None, "valid", at_7)
    yield on(
        "head-inside-unknown",
        "the head is of the removed part, where no checkpoint of its size is left",
        same,
        None,
        None,
        lambda scene: note_of(scene.accounted.lines[:13], scene.origin, scene.new),
    )
    yield on(
        "head-inside-contradicts",
        "the owner signed two histories of the removed part",
        same,
        1,
        "rolled-back",
        lambda scene: note_of(7 * scene.accounted.lines[:1], scene.origin, scene.old),
    )
    yield on(
        "head-inside-contradicts-later",
        "the owner signed two histories of the removed part, different after checkpoint 7",
        same,
        8,
        "rolled-back",
        lambda scene: note_of(11 * scene.accounted.lines[:1], scene.origin, scene.old),
    )
    yield stub("spaced", "white space in pruned.json", lambda data: data.replace(b":", b": "))
    yield stub("newline", "a newline at the end of pruned.json", lambda data: data + b"\n")
    yield stub("emptied", "pruned.json is empty", lambda _: b"")
    yield stub(
        "wrong-last-leaf",
        "another link than the next record has",
        member("last_leaf", 64 * "0"),
        15,
    )
    yield stub("wrong-size", "another size", member("size", 13))
    yield stub("true-for-size", "another type for the size", member("size", True))  # noqa: FBT003
    yield stub("wrong-frontier", "another tree", member("frontier", 3 * [64 * "0"]))
    yield stub("short-frontier", "a subtree less", member("frontier", 2 * [64 * "0"]))
    yield stub("nothing-kept", "nothing is kept", member("kept", []))
    yield on("deleted", "pruned.json deleted", lambda one: one.drop(PRUNED))
    yield on("edited-after", "line 16 edited", lambda one: one.edit(2, tweak), 16)
    yield on("edited-first", "line 15 edited", lambda one: one.edit(1, tweak), 15)
    yield on("checkpoint-missing", "its checkpoint deleted", lambda one: one.drop_notes(only=14))
    yield on(
        "proof-missing", "the checkpoint of a proof deleted", lambda one: one.drop_notes(only=7)
    )
    yield on(
        "unused-checkpoint-bad",
        "a checkpoint inside that proves nothing else is bad",
        lambda one: one.put_note(11, b"x"),
        11,
    )
    yield Attack(
        "pruned-rotation-not-kept",
        "the rotation is not among the kept lines",
        lambda scene: _stubbed(scene, {0: 7}),
        "invalid",
        1,
    )
    yield Attack(
        "pruned-genesis-not-kept",
        "the genesis is not among the kept lines",
        lambda scene: _stubbed(scene, {ROTATION_SEQ: 14}),
        "invalid",
        1,
    )
    yield Attack(
        "pruned-kept-line-edited",
        "a kept line edited",
        _with_edited_kept_line,
        "invalid",
        1,
    )
    yield Attack(
        "pruned-more-kept",
        "more lines kept than needed, as they may be",
        lambda scene: _stubbed(scene, {0: 7, 3: 11, ROTATION_SEQ: 11}),
        "unanchored",
    )
    yield Attack(
        "pruned-not-removed",
        "the removed segments are still there, as after a removal that was cut off",
        lambda scene: _left_behind(scene, A, B),
        "unanchored",
    )
    yield Attack(
        "pruned-half-removed",
        "one of the removed segments is still there, and edited",
        lambda scene: _left_behind(scene, B).edit(1, tweak),
        "unanchored",
    )
    yield Attack(
        "pruned-without-a-key",
        "records removed by somebody who has no key: pruned.json holds, and no record says so",
        lambda scene: pruned(scene.image),
        "invalid",
        1,
    )
    yield Attack(
        "pruned-without-a-key-chained",
        "the same, with a `pruned` record behind the last checkpoint, which takes no key either",
        _unsigned,
        "invalid",
        1,
    )
    yield Attack(
        "pruned-without-a-key-head",
        "records removed by somebody who has no key, and the head that was kept elsewhere",
        lambda scene: pruned(scene.image),
        "invalid",
        1,
        newest_head,
    )
    yield Attack(
        "pruned-without-a-key-elsewhere",
        "records removed by somebody who has no key, fewer than a signed `pruned` record says",
        _smaller,
        "invalid",
        1,
    )
    yield Attack(
        "pruned-record-unsealed",
        "the checkpoint deleted that covers the `pruned` record",
        lambda scene: pruned(scene.accounted).drop_notes(only=RECORDS),
        "invalid",
        1,
    )
    yield Attack(
        "pruned-segment-missing",
        "no segment is left",
        lambda scene: pruned(scene.accounted).drop(C),
        "invalid",
        15,
    )
    yield Attack(
        "pruned-by-stranger",
        "a stub, its checkpoints and all by another key",
        _counterfeit_stub,
        "invalid",
        1,
    )
    yield Attack(
        "pruned-of-another-ledger",
        "a stub of another ledger of the same keys, with its checkpoints",
        lambda scene: pruned(scene.other).put(C, scene.accounted.files[C]),
        "invalid",
        15,
    )


def _left_behind(scene: Scene, *names: str) -> Image:
    """The pruned ledger, and segments of what was removed."""
    image = pruned(scene.accounted)
    for name in names:
        image = image.put(name, scene.accounted.files[name])
    return image


def _unsigned(scene: Scene) -> Image:
    lines = scene.image.lines
    *_, last = chained(lines, pruning(RECORDS, lines[:SIZE]))
    return pruned(scene.image).append(last)


def _smaller(scene: Scene) -> Image:
    """The ledger without its first segment; its `pruned` record is of the first two."""
    lines = scene.accounted.lines
    return scene.accounted.drop(A).put(PRUNED, pruned_part(lines, FIRSTS[1], {0: 7}).encode())


def _stubbed(scene: Scene, keep: dict[int, int]) -> Image:
    """The pruned ledger with other kept lines."""
    return pruned(scene.accounted).put(
        PRUNED, pruned_part(scene.accounted.lines, SIZE, keep).encode()
    )


def _with_edited_kept_line(scene: Scene) -> Image:
    image = _stubbed(scene, {0: 7, 3: 7, ROTATION_SEQ: 14})
    data = image.files[PRUNED]
    at = data.index(b'"kind\\":\\"note')
    return image.put(PRUNED, data[:at] + data[at:].replace(b"42", b"43", 1))


def _counterfeit_stub(scene: Scene) -> Image:
    lines = [genesis(scene.origin, scene.stranger)]
    lines = chained(lines, *(note(seq) for seq in range(1, RECORDS)))
    image = pruned(scene.accounted)
    for size in image.sizes:
        image = image.put_note(size, scene.sign(lines[:size], scene.stranger))
    kept = pruned_part(lines, SIZE, {0: 7}).encode()
    rest = b"".join(line + b"\n" for line in lines[SIZE:])
    return image.put(PRUNED, kept).put(C, rest)
