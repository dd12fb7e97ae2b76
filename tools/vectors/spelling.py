"""Records in another spelling, and bytes that are no record."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING

from tools.vectors.attack import A, Attack, C, newest_head, tweak
from tools.vectors.forge import Scene, relinked, tail_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.vectors.image import Image


def spelling_attacks() -> Iterator[Attack]:
    """The same record, spelt another way: by hand, linked on, and signed by the owner."""
    for name, about, change in _spellings():
        yield Attack(
            name,
            f"line 5: {about}",
            lambda scene, change=change: scene.image.edit(5, change),
            "invalid",
            5,
        )
        if name == "links-swapped":
            continue
        yield Attack(
            f"{name}-rehash",
            f"line 5: {about}; every later link made to fit",
            lambda scene, change=change: relinked(scene.image.edit(5, change), 5),
            "invalid",
            1,
            key="old",
        )

        def resealed(scene: Scene, change: Callable[[bytes], bytes] = change) -> Image:
            return scene.reseal(relinked(scene.image.edit(17, change), 17), scene.owner)

        signed = f"line 17: {about}; everything signed anew by the owner"
        is_canonical = name in {"nfc-for-nfd", "extra-key"}
        yield Attack(f"{name}-resealed", f"{signed}, as it may be", resealed, "unanchored")
        yield Attack(
            f"{name}-resealed-head",
            f"{signed}; the head was kept",
            resealed,
            "rolled-back",
            15,
            head=newest_head,
        )
        yield Attack(
            f"{name}-resealed-deep",
            signed,
            resealed,
            "unanchored" if is_canonical else "invalid",
            None if is_canonical else 17,
            deep=True,
            is_schema=name == "extra-inner-key",
        )


def _spellings() -> Iterator[tuple[str, str, Callable[[bytes], bytes]]]:
    def replace(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
        return lambda line: line.replace(old, new)

    member = b'"one":1,"schema":"1.0"'
    yield "keys-reordered", "two keys swapped", replace(member, b'"schema":"1.0","one":1')
    yield "links-swapped", "_seq before _prev", _with_links_swapped
    yield "white-space", "a space after a colon", replace(b'"value":', b'"value": ')
    yield "trailing-space", "a space at the end", lambda line: line + b" "
    yield "carriage-return", "a carriage return at the end", lambda line: line + b"\r"
    yield "tab-at-the-end", "a tab at the end", lambda line: line + b"\t"
    yield "float-for-int", "1.0 for 1", replace(b'"one":1,', b'"one":1.0,')
    yield "exponent", "42e0 for 42", replace(b":42", b":42e0")
    yield "minus-zero", "-0 for 1", replace(b'"one":1,', b'"one":-0,')
    yield "escaped-letter", "\\u0047 for G", replace(b'"Gr', b'"\\u0047r')
    yield "escaped-solidus", "\\/ added", replace(b'"Gr', b'"\\/Gr')
    yield "nfc-for-nfd", "NFC for NFD", _compose
    yield "extra-key", "a key more", replace(b'"value":', b'"twice":2,"value":')
    yield "extra-inner-key", "a key more inside", replace(b'"note":{', b'"note":{"more":1,')
    yield "duplicate-key", "a key twice", replace(b'"one":1,', b'"one":1,"one":1,')
    yield "overlong-utf-8", "an overlong byte sequence", replace(b'"Gr', b'"\xc1\x87r')
    yield "lone-surrogate", "a lone surrogate", replace(b'"Gr', b'"\\ud800r')


def _with_links_swapped(line: bytes) -> bytes:
    prev, seq, rest = line[1:].split(b",", 2)
    return b"{%b,%b,%b" % (seq, prev, rest)


def _compose(line: bytes) -> bytes:
    return unicodedata.normalize("NFC", line.decode()).encode()


def shape_attacks() -> Iterator[Attack]:
    """What is no record at all, and lines that are cut or joined."""

    def lines(name: str, about: str, first: int, number: int, *raw: bytes) -> Attack:
        return Attack(
            name, about, lambda scene: scene.image.with_line(number, *raw), "invalid", first
        )

    def own(change: Callable[[bytes], list[bytes]]) -> Callable[[Scene], Image]:
        return lambda scene: scene.image.with_line(5, *change(scene.image.chunks[4].raw))

    bad = "invalid"
    yield Attack("blank-line", "a blank line", own(lambda raw: [raw, b"\n"]), bad, 6)
    yield Attack("blank-line-before", "a blank line", own(lambda raw: [b"\n", raw]), bad, 5)
    yield Attack(
        "split", "a line cut in two", own(lambda raw: [raw[:150] + b"\n", raw[150:]]), bad, 5
    )
    yield Attack("joined", "two lines joined", own(lambda raw: [raw[:-1]]), bad, 5)
    yield lines("nul-line", "a line of NULs", 5, 5, bytes(200) + b"\n")
    yield lines("array-line", "a line of another JSON type", 5, 5, b"[1]\n")
    yield Attack(
        "joined-closed",
        "the newline of a segment's last line cut off",
        lambda scene: scene.image.put(A, scene.image.files[A][:-1]),
        bad,
        7,
    )
    yield Attack(
        "newline-cut",
        "the newline of the last line cut off",
        lambda scene: scene.image.put(C, scene.image.files[C][:-1]),
        bad,
        20,
    )
    yield Attack(
        "newline-cut-unsigned",
        "the newline of the last line cut off, and its checkpoint",
        lambda scene: scene.image.put(C, scene.image.files[C][:-1]).drop_notes(only=20),
        "torn",
        20,
    )
    yield Attack(
        "crlf",
        "CRLF for every LF",
        lambda scene: scene.image.with_chunks(
            one._replace(raw=one.raw.replace(b"\n", b"\r\n")) for one in scene.image.chunks
        ),
        bad,
        1,
    )
    yield Attack(
        "byte-order-mark",
        "a byte order mark at the beginning",
        lambda scene: scene.image.put(A, b"\xef\xbb\xbf" + scene.image.files[A]),
        bad,
        1,
    )
    yield Attack(
        "upper-case-link",
        "_prev in upper case",
        lambda scene: scene.image.edit(5, lambda line: line[:10] + line[10:74].upper() + line[74:]),
        bad,
        5,
    )
    yield Attack(
        "zero-before-number",
        "_seq with a zero before it",
        lambda scene: scene.image.edit(5, lambda line: line.replace(b'"_seq":4', b'"_seq":04')),
        bad,
        5,
    )
    yield Attack(
        "huge-number",
        "_seq beyond 2^53",
        lambda scene: scene.image.edit(
            5, lambda line: line.replace(b'"_seq":4', b'"_seq":9007199254740993')
        ),
        bad,
        5,
    )
    yield Attack(
        "last-edited-without-tail",
        "the last line edited, tail.json deleted: one of the lines after checkpoint 14",
        lambda scene: scene.image.edit(20, tweak).drop("tail.json"),
        bad,
        15,
    )
    yield Attack(
        "last-but-one-edited-without-tail",
        "line 19 edited, tail.json deleted: the link of line 20 fails, and nothing says which side",
        lambda scene: scene.image.edit(19, tweak).drop("tail.json"),
        bad,
        20,
    )
    yield Attack(
        "last-edited-with-bare-tail",
        "the last line edited; tail.json with no more than what a verifier needs",
        _with_bare_tail,
        bad,
        20,
    )
    yield Attack(
        "last-edited-with-forged-tail",
        "the last line edited, tail.json made to fit: it leads to no signed root",
        _with_forged_tail,
        bad,
        15,
    )


def _with_bare_tail(scene: Scene) -> Image:
    image = scene.image.edit(20, tweak)
    tail = json.loads(image.files["tail.json"])
    needed = {name: tail[name] for name in ("size", "last_leaf", "proof")}
    return image.put("tail.json", json.dumps(needed).encode())


def _with_forged_tail(scene: Scene) -> Image:
    image = scene.image.edit(20, tweak)
    return image.put("tail.json", tail_of(image))
