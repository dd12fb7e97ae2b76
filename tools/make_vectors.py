"""Write docs/vectors/: ledgers, files and proofs, genuine and tampered with, and what they are.

    python -m tools.make_vectors             writes docs/vectors/
    python -m tools.make_vectors --check     only says whether it is up to date

Keys, times and ids are fixed, so the same bytes come out every time; only `content.sqlite` depends
on SQLite's version, and is left as it is where it holds the same rows.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tools.vectors import all_attacks
from tools.vectors.commitments import CONTENT, committed, rows_of
from tools.vectors.forge import Scene, scene
from tools.vectors.image import Image
from tools.vectors.plain import plain_cases, proof_cases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = Path(__file__).parents[1] / "docs" / "vectors"

_CHOSEN = """
edit-1 edit-5 edit-11 edit-20 rehash-5 rehash-11 rehash-17 delete-1 delete-5 delete-20
shorten-5 shorten-13 double-5 double-20 splice-5 splice-20 swap-5 swap-7
truncate-16 rollback-14 rollback-14-head rollback-16 rollback-16-head
white-space-rehash white-space-resealed white-space-resealed-head white-space-resealed-deep
keys-reordered-resealed-deep nfc-for-nfd-resealed-deep duplicate-key-resealed-deep
"""
"""Of the changes that `_MANY` matches, these are vectors; of the others all are."""
_MANY = re.compile(
    r"(edit|rehash|delete|shorten|double|splice|swap|truncate|rollback)-[0-9]+(-head)?|"
    r".*-(rehash|resealed|resealed-head|resealed-deep)|"
    r"checkpoint-(cut|crlf|emptied|unsigned)|trailing-space|tab-at-the-end|escaped-solidus|"
    r"minus-zero|overlong-utf-8|pruned-(wrong|short|true|emptied|newline|edited|half|record)-?.*|nul-line|"
    r"array-line|append-(old|wrong)-number|misnamed-.*|.*-key-trusted|blank-line-before"
)
_EXIT = {None: 2, "invalid": 5, "rolled-back": 5, "torn": 5}


@dataclass(frozen=True, slots=True)
class Vector:
    """One folder of docs/vectors/.

    Attributes:
        name: Of the folder.
        about: In words.
        files: By their names in the folder.
        args: How it is verified: `key`, and what else there is of `ledger`, `file`, `proof`,
            `consistency`, `old`, `head` (names in the folder) and `deep`.
        state: What a verifier must say; None where it must refuse (exit 2).
        line: Of the first finding of that state.
        segment: Its file below `segments/`.
        offset: Where the line begins in its file.
    """

    name: str
    about: str
    files: Mapping[str, bytes]
    args: Mapping[str, object]
    state: str | None
    line: int | None = None
    segment: str | None = None
    offset: int | None = None

    @property
    def exit_code(self) -> int:
        """Of a verifier, without further options."""
        return _EXIT.get(self.state, 0)

    @property
    def expected(self) -> dict[str, object]:
        """What `expected.json` says."""
        return {
            "about": self.about,
            "args": dict(self.args),
            "state": self.state,
            "line": self.line,
            "segment": self.segment,
            "offset": self.offset,
            "exit": self.exit_code,
        }


def vectors() -> list[Vector]:
    """All of them, in order of names."""
    one = scene()
    every = [*_attacks(one), *_commitments(one), *_plain(one), *_proofs(one)]
    return sorted(every, key=lambda vector: vector.name)


def files_of(vector: Vector) -> dict[str, bytes]:
    """All files of a vector's folder."""
    expected = json.dumps(vector.expected, indent=2, ensure_ascii=False) + "\n"
    return {**vector.files, "expected.json": expected.encode()}


def _ledger(image: Image) -> dict[str, bytes]:
    return {f"ledger/{name}": data for name, data in image.files.items()}


def _attacks(one: Scene) -> Iterator[Vector]:
    chosen = _CHOSEN.split()
    owners: dict[tuple[tuple[str, bytes], ...], str] = {}
    for attack in all_attacks():
        if attack.is_schema or (_MANY.fullmatch(attack.name) and attack.name not in chosen):
            continue
        image = attack.change(one)
        owner = owners.setdefault(tuple(sorted(image.files.items())), attack.name)
        is_own = owner == attack.name
        files = _ledger(image) if is_own else {}
        args: dict[str, object] = {
            "key": getattr(one, attack.key).public.text,
            "ledger": "ledger" if is_own else f"../{owner}/ledger",
        }
        if attack.head is not None:
            files["head.note"] = attack.head(one)
            args["head"] = "head.note"
        if attack.deep:
            args["deep"] = True
        spot = attack.spot_in(image)
        yield Vector(attack.name, attack.about, files, args, attack.state, attack.line, *spot)


def _commitments(one: Scene) -> Iterator[Vector]:
    args = {"key": one.old.public.text, "ledger": "ledger", "deep": True}

    def vector(name: str, about: str, image: Image, line: int | None = None) -> Vector:
        state = "unanchored" if line is None else "invalid"
        spot = (None, None) if line is None else image.spot(line)
        return Vector(f"committed-{name}", about, _ledger(image), args, state, line, *spot)

    genuine = committed(one, lambda rows: rows)
    yield vector("genuine", "all contents are there but the erased one", genuine)
    yield vector(
        "kept-back", "no content.sqlite: the contents were kept back", genuine.drop(CONTENT)
    )
    missing = committed(one, lambda rows: rows[:1])
    yield vector("row-missing", "a content is gone that nothing says was erased", missing, 5)
    edited = committed(one, lambda rows: [replace(rows[0], content=b"{}"), *rows[1:]])
    yield vector("row-edited", "another content than was committed to", edited, 4)
    swapped = committed(
        one,
        lambda rows: [
            replace(rows[0], record_id=rows[1].record_id),
            replace(rows[1], record_id=rows[0].record_id),
        ],
    )
    yield vector("rows-swapped", "two contents under each other's record", swapped, 4)


def _plain(one: Scene) -> Iterator[Vector]:
    for case in plain_cases(one):
        files = {"records.jsonl": case.data}
        args: dict[str, object] = {"key": one.new.public.text, "file": "records.jsonl"}
        if case.head is not None:
            files["head.note"] = case.head
            args["head"] = "head.note"
        about, place = case.about, (case.line, None, case.offset)
        yield Vector(case.name, about, files, args, case.state, *place)


def _proofs(one: Scene) -> Iterator[Vector]:
    for case in proof_cases(one):
        kind = "proof" if case.old is None else "consistency"
        files = {"proof.txt": case.data}
        args: dict[str, object] = {"key": getattr(one, case.key).public.text, kind: "proof.txt"}
        if case.old is not None:
            files["old.note"] = case.old
            args["old"] = "old.note"
        yield Vector(case.name, case.about, files, args, case.state)


_README = """\
# Test vectors

{count} ledgers, files and proofs, genuine and tampered with, for whoever writes a verifier from
[record-format.md](../record-format.md). `python -m tools.make_vectors` makes them again byte for
byte; a test checks that, and that both verifiers say of each what it says here. The keys are known
to everybody, so nothing that they sign means anything.

Each folder has an `expected.json`:

- `args`: what is verified (`ledger`, a folder, perhaps another vector's; `file`, lines; `proof`;
  `consistency` with `old`), and with what: the pinned `key`, a `head`, and whether `deep`;
- `state`, and `line`, `segment` and `offset` of its first finding; `segment` and `offset` are null
  where the line is in no file, and `segment` is null for plain files; a proof is `valid` or
  `invalid`; a state of null means that it must be refused;
- `exit`: the exit code: 0, 5, or 2 for a refusal.

The ledger that most are made of has 20 records in three segments: lines 1-7, 8-14 and 15-20. Line
11 rotates the key. Checkpoints cover 7, 11, 14 and 20 lines. The `pruned` ones lack the first 14;
line 18 says so in most of them.

Git must not convert line ends here (`.gitattributes` says so).

| vector | what it is | state | line |
|---|---|---|---|
{rows}"""


def readme(every: list[Vector]) -> str:
    """The list of all vectors."""
    rows = "".join(
        f"| [{one.name}]({one.name}/expected.json) | {one.about} | {one.state or 'refused'} "
        f"| {one.line or ''} |\n"
        for one in every
    )
    return _README.format(count=len(every), rows=rows)


def all_files() -> dict[str, bytes]:
    """Every file of docs/vectors/ by its name there."""
    every = vectors()
    files = {f"{one.name}/{name}": data for one in every for name, data in files_of(one).items()}
    return {
        **files,
        "README.md": readme(every).encode(),
        ".gitattributes": b"* -text\n*.md text eol=lf\n",
    }


def is_same(name: str, data: bytes, other: bytes) -> bool:
    """Whether two files are one; of databases, whether their rows are."""
    if name.endswith(CONTENT):
        return rows_of(data) == rows_of(other)
    return data == other


def differences(folder: Path) -> list[str]:
    """Names of files that are not as they would be written, are missing, or should not be there."""
    found = Image.load(folder).files if folder.is_dir() else {}
    wanted = all_files()
    return sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found or name not in wanted or not is_same(name, wanted[name], found[name])
    )


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    if parser.parse_args().check:
        changed = differences(FOLDER)
        print("\n".join(changed) or "docs/vectors/ is up to date")
        return 1 if changed else 0
    wanted = all_files()
    for name in differences(FOLDER):
        if name not in wanted:
            (FOLDER / name).unlink()
    for name in differences(FOLDER):
        Image({name: wanted[name]}).write(FOLDER)
    for path in sorted(FOLDER.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
    print(f"{len(wanted)} files, {sum(map(len, wanted.values()))} bytes in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
