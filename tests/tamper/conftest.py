from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cert.ledger.appender import open_ledger
from cert.ledger.errors import SigningKeyError
from cert.ledger.writer import Limits
from tools.vectors import forge
from tools.vectors.forge import Scene, note, pruning, signer
from tools.vectors.image import Image

if TYPE_CHECKING:
    from pathlib import Path

    from cert.ledger.keys import PublicKey, Signer


class FakeKeys:
    """Keys in memory."""

    heads = None

    def __init__(self, *signers: Signer) -> None:
        self.signers = signers

    def default(self) -> Signer:
        return self.signers[0]

    def find(self, public: PublicKey) -> Signer:
        for one in self.signers:
            if one.public == public:
                return one
        raise SigningKeyError("no such key")


def written(
    folder: Path, origin: str, old: Signer, new: Signer, *, accounts: bool = False
) -> Image:
    """The ledger of `tools.vectors.forge`, as the real writer writes it."""
    limits = Limits(segment_bytes=1800, seal_s=1e9)
    with open_ledger(folder, FakeKeys(old, new), origin=origin, limits=limits) as ledger:
        ledger.append([note(seq) for seq in range(1, 7)])
        ledger.append([note(seq) for seq in range(7, 10)])
        ledger.rotate(new)
        ledger.append([note(seq) for seq in range(11, 14)])
        bodies = [note(seq) for seq in range(14, 20)]
        if accounts:
            bodies[3] = pruning(17, Image.load(folder).lines)
        ledger.append(bodies)
    return Image.load(folder)


@pytest.fixture(scope="session")
def forged() -> Scene:
    return forge.scene()


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The same scene, but all ledgers come from the writer."""
    old, new, stranger = (signer(name) for name in ("old", "new", "stranger"))
    folder = tmp_path_factory.mktemp("ledgers")
    return Scene(
        written(folder / "one", forge.ORIGIN, old, new),
        written(folder / "accounted", forge.ORIGIN, old, new, accounts=True),
        written(folder / "another", "example.org/another", old, new, accounts=True),
        forge.ORIGIN,
        old,
        new,
        stranger,
    )
