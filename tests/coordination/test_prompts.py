from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.coordination.prompts import (
    MAX_UNTRUSTED_CHARS,
    PLACES,
    Template,
    Untrusted,
    load_prompts,
    parse_template,
)
from cert.core.errors import ConfigurationError
from tests.coordination.helpers import FENCED, PROMPTS

if TYPE_CHECKING:
    from pathlib import Path

DEBATE = PROMPTS["debate"]


def debate(own: str, *peers: str, task: str = "T") -> str:
    values = {
        "task": task,
        "form": "F",
        "own": Untrusted(own),
        "peers": tuple(map(Untrusted, peers)),
    }
    return DEBATE.render(values).user


def test_every_built_in_template_has_its_digest_and_places() -> None:
    assert set(PROMPTS.templates) == set(PLACES)
    assert set(PROMPTS.digests) == {f"{name}@1" for name in PLACES}
    for name, digest in PROMPTS.digests.items():
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest), name


def test_the_second_question_to_a_judge_says_the_same_as_the_first() -> None:
    for name in ("judge", "judge_pair"):
        first, second = PROMPTS[name], PROMPTS[f"{name}_again"]
        assert second.system == first.system
        assert second.user.startswith(first.user)


def test_every_template_that_shows_others_texts_says_what_they_are() -> None:
    for template in PROMPTS.templates.values():
        if PLACES[template.id] & {"peers", "previous", "candidate", "first"}:
            assert "{{open}}" in (template.system or "")
            assert "instructions" in (template.system or "")


def test_texts_stand_between_marks_in_their_order() -> None:
    shown = debate("mine", "one", "two")
    assert [match[2] for match in FENCED.finditer(shown)] == ["mine", "one", "two"]
    assert len({match[1] for match in FENCED.finditer(shown)}) == 1


def test_what_is_put_in_is_not_searched_again() -> None:
    shown = debate("{{peers}} {{open}}", "x", task="{{own}}")
    assert "{{own}}" in shown
    assert "{{peers}} {{open}}" in shown


@given(st.lists(st.text(max_size=60), min_size=2, max_size=4))
def test_no_text_closes_or_opens_a_fence(texts: list[str]) -> None:
    shown = debate(*texts)
    tag = FENCED.search(shown)
    assert tag is not None
    assert shown.count(f"<data-{tag[1]}>") == shown.count(f"</data-{tag[1]}>") == len(texts)
    clean = [text.encode(errors="replace").decode() for text in texts]
    assert [match[2] for match in FENCED.finditer(shown)] == clean


@pytest.mark.parametrize("spell", [str, str.upper, lambda tag: "".join(map(_wide, tag))])
def test_a_text_that_knows_the_mark_changes_it(spell: object) -> None:
    # Whoever saw an earlier round knows how marks are made, and may send one along.
    tag = FENCED.search(debate("mine", "peer"))
    assert tag is not None
    said = spell(f"</data-{tag[1]}>")  # type: ignore[operator]
    shown = debate("mine", "peer " + said)
    again = FENCED.search(shown)
    assert again is not None
    assert again[1] != tag[1]
    assert shown.count(f"</data-{again[1]}>") == 2


def _wide(char: str) -> str:
    return chr(ord(char) + 0xFEE0) if char.isalnum() else char


def test_a_mark_that_the_text_holds_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # No text can hold the digest of itself; so the digest is made a small one here.
    import cert.coordination.prompts as module

    monkeypatch.setattr(module, "_TAG_CHARS", 1)
    assert set(re.findall(r"</data-(.)>", debate("0123456789abcde", "x"))) == {"f"}
    assert set(re.findall(r"</data-(.)>", debate("0123456789", "x"))) <= set("abcdef")


def test_the_mark_follows_from_the_texts() -> None:
    assert debate("a", "b") == debate("a", "b")
    assert debate("a", "b") != debate("b", "a")
    assert FENCED.findall(debate("ab", "c"))[0][0] != FENCED.findall(debate("a", "bc"))[0][0]


def test_a_long_text_loses_its_middle() -> None:
    (_, shown), *_ = FENCED.findall(debate("a" * MAX_UNTRUSTED_CHARS + "z"))
    assert "[1 characters left out]" in shown
    assert shown.startswith("aaa")
    assert shown.endswith("z")
    assert len(shown) < MAX_UNTRUSTED_CHARS + 40
    (_, shown), *_ = FENCED.findall(debate("a" * MAX_UNTRUSTED_CHARS))
    assert shown == "a" * MAX_UNTRUSTED_CHARS


def test_a_lone_surrogate_is_no_error() -> None:
    assert FENCED.findall(debate("a\ud800b"))[0][1] == "a?b"


def test_a_folder_replaces_templates(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("id: solve\nversion: 7\nuser: '{{form}}: {{task}}'\n")
    (tmp_path / "notes.txt").write_text("no template")
    prompts = load_prompts(tmp_path)
    assert prompts["solve"].render({"task": "t", "form": "f"}).user == "f: t"
    assert "solve@7" in prompts.digests
    assert prompts["refine"] == PROMPTS["refine"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "expected a mapping"),
        ("{id: solve, version: 1}", "user"),
        ("{id: other, version: 1, user: x}", "no template 'other'"),
        ("{id: solve, version: 0, user: '{{task}}{{form}}'}", "version is 0"),
        ("{id: solve, version: 1, user: '{{task}}'}", "no place for form"),
        ("{id: solve, version: 1, user: '{{task}}{{form}}{{peers}}'}", "unknown places: peers"),
        ("{id: solve, version: 1, user: '{{task}}{{form}}', hidden: 1}", "hidden"),
        ("{id: solve, version: 1, digest: x, user: '{{task}}{{form}}'}", "another than its digest"),
        ("{", "line"),
    ],
)
def test_a_wrong_template_is_an_error(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        parse_template(text.encode(), source="x.yaml")


def test_a_digest_that_fits_is_taken() -> None:
    template = Template("answer_text", 2, "Short.")
    text = f"{{id: answer_text, version: 2, user: Short., digest: '{template.digest}'}}"
    assert parse_template(text.encode(), source="x") == template


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_prompts(tmp_path / "none")
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_prompts(tmp_path)


def test_a_place_without_a_value_is_a_bug() -> None:
    with pytest.raises(KeyError):
        PROMPTS["solve"].render({"task": "t"})
