"""Two verifiers that were written apart from the same page say the same of every attack."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cert.evidence.deep import DeepCheck
from tests.tamper.verifiers import SECOND, Said, ask_cert, ask_second
from tools.vectors import all_attacks

if TYPE_CHECKING:
    from pathlib import Path

    from tools.vectors.attack import Attack
    from tools.vectors.forge import Scene

ATTACKS = [attack for attack in all_attacks() if not attack.is_schema]
RUN = ("edit-5", "torn", "rollback-14-head", "append", "head", "head-by-stranger", "pruned-head")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_both_say_the_same(attack: Attack, real: Scene) -> None:
    image = attack.change(real)
    head = None if attack.head is None else attack.head(real)
    keys = {name: getattr(real, name).public for name in ("old", "new", "stranger")}
    for name, kept in (
        (attack.key, head),
        ("old", None),
        ("new", real.image.note(14)),
        ("stranger", head),
    ):
        deep = DeepCheck() if attack.deep else None
        ours = ask_cert(image, keys[name], kept, deep)
        assert ours == ask_second(image, keys[name], kept, deep=attack.deep), name


@pytest.mark.parametrize("name", RUN)
def test_the_program_says_what_its_functions_say(name: str, real: Scene, tmp_path: Path) -> None:
    attack = next(one for one in ATTACKS if one.name == name)
    folder = attack.change(real).write(tmp_path / "ledger")
    arguments = [str(folder), "--key", getattr(real, attack.key).public.text, "--json"]
    head = None
    if attack.head is not None:
        head = attack.head(real)
        (tmp_path / "head.note").write_bytes(head)
        arguments += ["--head", str(tmp_path / "head.note")]
    program = [sys.executable, "-I", str(SECOND), *arguments]
    done = subprocess.run(program, capture_output=True, check=False, timeout=60)
    said = Said(None)
    if done.returncode != 2:
        value = json.loads(done.stdout)
        place = value["segment"], None if value["segment"] is None else value["offset"]
        said = Said(value["state"], value["line"], *place)
        assert base64.b64decode(value["root"])
    bad = said.state in {"invalid", "rolled-back", "torn"}
    assert done.returncode == (2 if said.state is None else 5 if bad else 0)
    image = attack.change(real)
    assert said == ask_cert(image, getattr(real, attack.key).public, head)
