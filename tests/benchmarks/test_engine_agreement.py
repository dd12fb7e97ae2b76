"""What `benchmarks/engine.py` says of contestants that computed something else."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TRUTH = {"logprobs": [-1.0, -2.0], "entropies": [3.0, 4.0], "gaps": [0.0, 0.0]}
NAMES = {"decode": "cert-{}-16", "score": "score-cert-{}-16"}


class FakeJudge:
    """Knows the truth about two tokens after a prompt of one."""

    def __init__(self, **truth: list[float]) -> None:
        self.truth = {**TRUTH, **truth}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request == {"pairs": [([5], [6, 7])]}
        return {"truth": [self.truth]}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("engine")


def check(
    engine: ModuleType,
    task: str,
    precision: str = "float32",
    judge: FakeJudge | None = None,
    **answer: object,
) -> dict[str, float]:
    honest = {"logprobs": TRUTH["logprobs"], "entropies": TRUTH["entropies"], "logprob_sum": None}
    found = engine.Result(answers=[{"token_ids": [6, 7], **honest, **answer}])
    asked = {"prompts": [{"text": "five", "token_ids": [5]}]}
    said: dict[str, float] = engine.check(
        NAMES[task].format(precision), found, asked, judge or FakeJudge()
    )
    return said


@pytest.mark.parametrize("task", ["decode", "score"])
def test_an_honest_contestant_agrees(engine: ModuleType, task: str) -> None:
    assert check(engine, task) == {
        "compared": 4,
        "largest_gap": 0.0,
        "largest_nats": 0.0,
        "mean_nats": 0.0,
        "same": True,
    }
    assert check(engine, task, logprobs=[], entropies=[], logprob_sum=-3.0)["same"]


@pytest.mark.parametrize(
    "lie",
    [
        {"logprobs": [-1.0, -2.01]},
        {"entropies": [3.01, 4.0]},
        {"logprobs": [-1.0]},
        {"entropies": [3.0, 4.0, 5.0]},
        {"logprobs": [-1.0, float("nan")]},
        {"logprobs": [], "entropies": [], "logprob_sum": -3.01},
    ],
)
@pytest.mark.parametrize("task", ["decode", "score"])
def test_what_was_measured_wrongly_is_noticed(
    engine: ModuleType, task: str, lie: dict[str, object]
) -> None:
    assert not check(engine, task, **lie)["same"]


def test_a_scorer_that_says_nothing_is_noticed(engine: ModuleType) -> None:
    assert not check(engine, "score", logprobs=[], entropies=[])["same"]
    assert check(engine, "decode", logprobs=[], entropies=[])["same"]  # it may write only


def test_a_token_that_was_not_the_greedy_one_is_noticed(engine: ModuleType) -> None:
    judge = FakeJudge(gaps=[0.0, 0.5])
    assert not check(engine, "decode", judge=judge)["same"]
    assert check(engine, "score", judge=judge)["same"]  # given texts hold any token


def test_fewer_bits_may_differ_by_more(engine: ModuleType) -> None:
    lie = {"logprobs": [-1.0, -2.2]}
    assert not check(engine, "decode", **lie)["same"]
    assert check(engine, "decode", "int8", **lie)["same"]
    assert not check(engine, "decode", "int8", logprobs=[-1.0, -5.1])["same"]
