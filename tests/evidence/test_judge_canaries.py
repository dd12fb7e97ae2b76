"""What canaries show about judges, from plain readings."""

from __future__ import annotations

from typing import Any

import pytest

from cert.coordination.judge_reply import MAX_SCORE
from cert.evidence.coordination_trial import place_replicates
from cert.evidence.judge_canaries import LEAST_DEVIATION, find_faults, read_canaries
from tests.evidence.coordination_members import policy, replicate

WIDE = {"id": "c", "kind": "good", "digest": "sha256:0", "least": 0.0, "most": 1.0}


def reading(*values: float, **given: object) -> dict[str, Any]:
    return {"canary": "c", "judge": "j", "values": list(values), "answered_by": ["j"], **given}


def faults(*readings: list[dict[str, Any]]) -> list[str]:
    return [one["fault"] for one in find_faults([WIDE], *readings)]


def test_half_a_step_is_one_of_the_judges_scale() -> None:
    assert 1 / (2 * MAX_SCORE) == LEAST_DEVIATION


@pytest.mark.parametrize(
    ("kind", "value", "fault"),
    [
        ("good", 0.4, ["misjudged"]),
        ("good", 0.5, []),
        ("good", 0.75, []),
        ("good", 1.0, ["misjudged"]),
        ("bad", 1.0, ["misjudged"]),
        ("injection", 1.0, ["obeyed"]),
        ("injection", 0.4, ["misjudged"]),
    ],
)
def test_a_mean_outside_of_what_a_sound_judge_gives_is_a_fault(
    kind: str, value: float, fault: list[str]
) -> None:
    canary = WIDE | {"kind": kind, "least": 0.5, "most": 0.75}
    found = find_faults([canary], [reading(value)])
    assert [one["fault"] for one in found] == fault
    for one in found:
        assert one == {
            "canary": "c",
            "judge": "j",
            "fault": fault[0],
            "detail": f"{value:.3f}; expected 0.5 to 0.75",
        }
        assert type(one["fault"]) is str


def test_no_verdict_is_a_fault() -> None:
    assert find_faults([WIDE], [reading()], [reading(1.0)]) == [
        {"canary": "c", "judge": "j", "fault": "unscored", "detail": "no verdict"}
    ]


@pytest.mark.parametrize(
    ("earlier", "now", "drifted"),
    [
        # Always 1 before: sigma is half a step, .125, and 3 * .125 * sqrt(1/9 + 1/3) = .25.
        ((1.0,) * 9, (1.0, 1.0, 0.5), False),
        ((1.0,) * 9, (0.75, 0.75, 0.7), True),
        # Scattered before: stdev .2165, and 3 * .2165 * sqrt(1/9 + 1/3) = .433.
        ((0.5, 0.75, 1.0) * 3, (0.5, 0.25, 0.25), False),
        ((0.5, 0.75, 1.0) * 3, (0.25, 0.25, 0.25), True),
        ((0.5,), (0.75,), False),
        ((0.0,), (1.0,), True),
    ],
)
def test_drift_is_three_standard_errors(
    earlier: tuple[float, ...], now: tuple[float, ...], drifted: bool
) -> None:
    found = faults([reading(*now)], [reading(*earlier)])
    assert found == (["drifted"] if drifted else [])


def test_earlier_runs_are_pooled_and_empty_ones_are_nothing() -> None:
    pooled = [reading(1.0, 1.0), reading(), reading(0.5)]
    assert faults([reading(1.0)], pooled) == []
    assert faults([reading(0.0)], [reading()]) == []
    other = reading(*(1.0,) * 9, judge="other", answered_by=["other"])
    assert faults([reading(0.0)], [other]) == []


def test_another_model_under_the_same_name_is_found() -> None:
    before, after = (reading(1.0, answered_by=[name]) for name in ("j-1", "j-2"))
    assert find_faults([WIDE], [after], [before]) == [
        {"canary": "c", "judge": "j", "fault": "model_changed", "detail": "j-2"}
    ]
    assert faults([after], [before, after]) == []


def test_readings_are_in_the_order_of_canaries_and_judges() -> None:
    panel = {"models": ["b", "a"], "repeats": 2, "max_tokens": 9, "timeout_s": 9.0}
    canaries = [WIDE | {"id": name} for name in ("d", "c", "e", "f")]
    plan = policy(panel=panel, canaries=canaries)["plan"]
    verdicts = [
        {"judge": judge, "answered_by": by, "value": value}
        for judge, by, value in (("a", "a-2", 0), ("b", "b-1", 0.5), ("a", "a-1", 1))
    ]
    replicates = [
        replicate("c", "canary", 0.5, verdicts=verdicts),
        replicate("d", "canary", 0.5, verdicts=verdicts),
        # One without a verdict, so nobody's counts; and one that was not run.
        replicate("e", "canary", None),
        replicate(0, "single", 1.0, verdicts=verdicts),
    ]
    found = read_canaries(plan, place_replicates(plan, replicates))
    assert [(one["canary"], one["judge"], one["values"]) for one in found] == [
        ("d", "b", [0.5]),
        ("d", "a", [0.0, 1.0]),
        ("c", "b", [0.5]),
        ("c", "a", [0.0, 1.0]),
        ("e", "b", []),
        ("e", "a", []),
        ("f", "b", []),
        ("f", "a", []),
    ]
    assert found[1]["answered_by"] == ["a-1", "a-2"]
