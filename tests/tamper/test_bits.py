"""Every bit of a ledger of twenty records, every byte at which it can be cut, and both verifiers.

The small ledger has lines as short as lines can be, so that all of it can be gone through each
time; the one with segments and a rotation is gone through completely with `-m slow`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cert.ledger.appender import open_ledger
from tests.tamper.conftest import FakeKeys
from tests.tamper.verifiers import Said, ask_cert, ask_second
from tools.vectors.forge import SEALED, signer
from tools.vectors.image import CHECKPOINTS, SEGMENTS, Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.vectors.forge import Scene

KEY = signer("old").public


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("small") / "ledger"
    with open_ledger(folder, FakeKeys(signer("old")), origin="a") as ledger:
        ledger.append([b'{"a":%d}' % number for number in range(19)])
    return Image.load(folder)


def flips(
    image: Image, name: str, bits: range | None = None, places: range | None = None
) -> Iterator[tuple[int, Image]]:
    """The image with one bit of a file flipped, and where; one bit a byte where none are named."""
    data = image.files[name]
    for at in places or range(len(data)):
        for bit in bits or (at % 8,):
            flipped = bytes([data[at] ^ 1 << bit])
            yield at, image.put(name, data[:at] + flipped + data[at + 1 :])


def damaged_line(image: Image, name: str, at: int) -> int:
    """The line that a byte belongs to, with its newline, or the last of its checkpoint."""
    if name.startswith(CHECKPOINTS):
        return int(name.removeprefix(CHECKPOINTS).removesuffix(".note"))
    names = [SEGMENTS + one for one in image.segments]
    data = b"".join(image.files[one] for one in names[: names.index(name)])
    data += image.files[name][: at + 1]
    return data.count(b"\n") + (not data.endswith(b"\n"))


def test_every_bit_of_twenty_records_counts(small: Image) -> None:
    (segment,) = small.segments
    count = 0
    for at, image in flips(small, SEGMENTS + segment, range(8)):
        line = damaged_line(small, SEGMENTS + segment, at)
        assert ask_cert(image, KEY) == ("invalid", line, *image.spot(line)), at
        count += 1
    assert count == 8 * len(small.files[SEGMENTS + segment]) > 8 * 20 * 90


def test_every_bit_of_a_checkpoint_counts(small: Image) -> None:
    for at, image in flips(small, f"{CHECKPOINTS}{20:012d}.note", range(8)):
        assert ask_cert(image, KEY) == ("invalid", 20, *small.spot(20)), at


def test_no_bit_of_the_notes_about_the_end_counts(small: Image) -> None:
    for at, image in flips(small, "tail.json"):
        assert ask_cert(image, KEY) == Said("unanchored"), at


def test_every_bit_of_the_head_counts(small: Image) -> None:
    """A head that is not what was kept proves nothing, and is never taken for a good one."""
    files = {"head": small.note(20)}
    for at, one in flips(Image(files), "head", range(8)):
        assert ask_cert(small, KEY, one.files["head"]).state is None, at


def test_both_verifiers_agree_on_bits(small: Image) -> None:
    for name in small.files:
        for at, image in flips(small, name):
            assert ask_cert(image, KEY) == ask_second(image, KEY), (name, at)


@pytest.mark.parametrize(("key", "start"), [("old", 0), ("new", 3)])
def test_bits_of_segments_and_a_rotation(real: Scene, key: str, start: int) -> None:
    for name, data in real.image.files.items():
        places = range(start, len(data), 9)
        check_flips(real, key, name, places, None)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("key", ["old", "new"])
def test_every_bit_of_segments_and_a_rotation(real: Scene, key: str) -> None:
    for name, data in real.image.files.items():
        check_flips(real, key, name, range(len(data)), range(8))


def check_flips(scene: Scene, key: str, name: str, places: range, bits: range | None) -> None:
    genuine, pinned = scene.image, getattr(scene, key).public
    for at, image in flips(genuine, name, bits, places):
        said = ask_cert(image, pinned)
        assert said == ask_second(image, pinned), (name, at)
        if name == "tail.json":
            assert said == Said("unanchored"), at
            continue
        line = damaged_line(genuine, name, at)
        assert said == ("invalid", line, *image.spot(line)), (name, at)


def cuts(image: Image) -> Iterator[tuple[int, int, Image]]:
    """The image cut at every byte: how many lines are whole, how much of the next is left."""
    data = b"".join(one.raw for one in image.chunks)
    for size in range(len(data)):
        whole = data[:size].count(b"\n")
        yield whole, size - (data[:size].rfind(b"\n") + 1), image.truncate(size)


def test_every_truncation_is_found(small: Image) -> None:
    for whole, rest, image in cuts(small):
        place = image.spot(whole + 1)
        assert ask_cert(image, KEY) == ("invalid", whole + 1, *place)
        bare = image.drop_notes()
        # Without a whole line there is no ledger; with one, nothing is signed any more.
        state = "invalid" if not whole else "torn" if rest else "unsealed"
        line = whole + 1 if rest or not whole else 1
        assert ask_cert(bare, KEY) == (state, line, *bare.spot(line)), (whole, rest)
        with_head = ask_cert(bare, KEY, small.note(20))
        state = "rolled-back" if whole else "invalid"
        assert with_head == (state, whole + 1, *place), (whole, rest)


def test_truncations_of_segments_and_a_rotation(real: Scene) -> None:
    genuine = real.image
    for whole, rest, image in cuts(genuine):
        if rest > 1 and rest % 40:
            continue  # a byte or none of a line, and some more
        for key in (real.old.public, real.new.public):
            for left in (image, image.drop_notes(above=whole)):
                assert ask_cert(left, key) == ask_second(left, key), (whole, rest)
        said = ask_cert(image.drop_notes(above=whole), real.old.public)
        sealed = max(size for size in (0, *SEALED) if size <= whole)
        state = "torn" if rest else "unanchored" if sealed == whole else "unsealed"
        line = {"torn": whole + 1, "unsealed": sealed + 1}.get(state)
        if whole:
            place = image.spot(line) if line else (None, None)
            assert said == (state, line, *place), (whole, rest)
