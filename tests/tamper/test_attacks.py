"""Every attack on a ledger, and that a verification says of it what the format's page says.

The ledger of `tools.vectors.forge` is attacked twice: as the tool builds it, and as the real writer
writes it. What is expected stands with the attacks and was worked out by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cert.evidence.deep import DeepCheck
from cert.ledger.errors import ProofError
from cert.ledger.reader import FolderReader
from cert.ledger.verify import verify_ledger
from tests.tamper.verifiers import Said, ask_cert
from tools.vectors import all_attacks
from tools.vectors.forge import FIRSTS, RECORDS, SEALED, Scene

if TYPE_CHECKING:
    from pathlib import Path

    from tools.vectors.attack import Attack

ATTACKS = list(all_attacks())
BY_NAME = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def expected(attack: Attack, scene: Scene) -> Said:
    return Said(attack.state, attack.line, *attack.spot_in(attack.change(scene)))


def test_every_attack_has_its_own_name() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) > 400


def test_the_writer_writes_what_the_tool_builds(real: Scene, forged: Scene) -> None:
    """But for ids and times of control records, and so for every hash after them."""
    assert real.image.files.keys() == forged.image.files.keys()
    assert real.image.segments == [f"{first:012d}.jsonl" for first in FIRSTS]
    assert real.image.sizes == list(SEALED)
    assert len(real.image.lines) == RECORDS
    for mine, its in zip(real.image.chunks, forged.image.chunks, strict=True):
        assert (mine.segment, len(mine.raw)) == (its.segment, len(its.raw))


@BY_NAME
def test_on_the_written_ledger(attack: Attack, real: Scene) -> None:
    image = attack.change(real)
    head = None if attack.head is None else attack.head(real)
    deep = DeepCheck() if attack.deep else None
    said = ask_cert(image, getattr(real, attack.key).public, head, deep)
    assert said == expected(attack, real)


@pytest.mark.parametrize("attack", ATTACKS[::3], ids=lambda attack: attack.name)
def test_on_the_forged_ledger_on_a_disk(attack: Attack, forged: Scene, tmp_path: Path) -> None:
    folder = attack.change(forged).write(tmp_path / "ledger")
    head = None if attack.head is None else attack.head(forged)
    deep = DeepCheck() if attack.deep else None
    pinned = getattr(forged, attack.key).public
    if attack.state is None:
        with pytest.raises(ProofError):
            verify_ledger(FolderReader(folder), pinned, head=head, deep=deep)
        return
    report = verify_ledger(FolderReader(folder), pinned, head=head, deep=deep)
    assert report.state.value == attack.state
    first = report.first
    want = expected(attack, forged)
    if first is None:
        assert want.line is None
    else:
        assert (first.line, first.segment) == (want.line, want.segment)
        assert first.offset == want.offset
