"""Two verifiers that were written apart from the same page say the same of every attack."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cert.evidence.deep import DeepCheck
from tests.tamper.verifiers import SECOND, Said, ask_cert, ask_second
from tools.vectors import all_attacks

if TYPE_CHECKING:
    from pathlib import Path

    from tools.vectors.attack import Attack
    from tools.vectors.forge import Scene

ATTACKS = [attack for attack in all_attacks() if not attack.is_schema]
SHALLOW = [attack for attack in ATTACKS if not attack.deep]
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


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_both_say_the_same_of_several_attacks_at_once(forged: Scene, data: st.DataObject) -> None:
    """Only state and line: of several findings at one line, either may be the first."""
    chosen = data.draw(st.lists(st.sampled_from(SHALLOW), min_size=2, max_size=3))
    scene = forged
    for attack in chosen:
        try:
            scene = replace(scene, image=attack.change(scene))
        except (LookupError, ValueError):  # what it changes is not there any more
            continue
    image = scene.image
    filled = sorted(name for name, content in image.files.items() if content)
    names = st.sampled_from(filled) if filled else st.nothing()
    for name in data.draw(st.lists(names, max_size=1)):
        content = bytearray(image.files[name])
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        image = image.put(name, bytes(content))
    key = data.draw(st.sampled_from([forged.old, forged.new])).public
    heads = [None, forged.image.note(7), forged.image.note(20), forged.other.note(20)]
    head = data.draw(st.sampled_from(heads))
    assert ask_cert(image, key, head)[:2] == ask_second(image, key, head)[:2]
