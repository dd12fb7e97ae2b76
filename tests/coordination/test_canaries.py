from __future__ import annotations

import re

import pytest

from cert.coordination.canaries import Canary, load_canaries, parse_canaries
from cert.coordination.evaluator_parameters import Criterion, Judged
from cert.core.errors import ConfigurationError

CANARIES = load_canaries()


def test_there_are_canaries_of_every_kind() -> None:
    assert {canary.kind for canary in CANARIES} == {"good", "bad", "injection"}
    assert all(canary.least >= 0.5 for canary in CANARIES if canary.kind == "good")
    assert all(canary.most <= 0.5 for canary in CANARIES if canary.kind != "good")
    assert len({canary.id for canary in CANARIES}) == 6


WIDE = Canary("c", "good", "p", "text", (Criterion("a", "?"),))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "Expected `array`"),
        ("- {id: a}", "missing required field"),
        (
            "- {id: a, kind: evil, prompt: p, candidate: c, rubric: [{id: x, text: y}]}",
            "kind is 'evil'",
        ),
        ("- {id: a/b, kind: bad, prompt: p, candidate: c, rubric: [{id: x, text: y}]}", "slash"),
        ("- {id: a, kind: bad, prompt: p, candidate: c, rubric: []}", "0 criteria"),
        (
            "- {id: a, kind: bad, prompt: p, candidate: c, rubric: [{id: x, text: y}], least: 2}",
            "0 <= least",
        ),
        (
            "- &a {id: a, kind: bad, prompt: p, candidate: c, rubric: [{id: x, text: y}]}\n- *a",
            "twice",
        ),
    ],
)
def test_wrong_canaries_are_an_error(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        parse_canaries(text.encode(), source="x")


def test_a_canary_is_a_task_like_any_other() -> None:
    assert WIDE.task.evaluator == Judged(WIDE.rubric)
    assert len({canary.digest for canary in CANARIES}) == 6
