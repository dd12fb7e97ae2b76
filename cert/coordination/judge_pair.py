"""Models that compare a candidate with the expected answer, in both orders.

Judges prefer one place over the other; so a preference counts only if it survives the exchange of
places. Otherwise the two are even.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from cert.coordination.evaluator import Score, Unscored
from cert.coordination.evaluator_parameters import Compared
from cert.coordination.judge import (
    NoVerdictError,
    Question,
    ask_verdict,
    find_flags,
)
from cert.coordination.judge_reply import Preference, parse_preference, preference_schema
from cert.coordination.prompts import Untrusted

if TYPE_CHECKING:
    from cert.coordination.evaluator import Candidate
    from cert.coordination.plan import JudgePanel
    from cert.coordination.prompts import Prompts
    from cert.coordination.tasks import Task
    from cert.coordination.transcript import Ask

_WORTH = {"first": 1.0, "second": 0.0, "neither": 0.5}


@dataclass(frozen=True, slots=True)
class PairJudge:
    """The evaluator of tasks that ask which of two answers is better."""

    panel: JudgePanel
    prompts: Prompts
    is_free: bool = False

    async def evaluate(self, task: Task, candidate: Candidate, ask: Ask) -> Score | Unscored:
        """Judge one candidate: 1 where it is better than the expected answer, 0.5 where even."""
        if not isinstance(task.evaluator, Compared):
            raise TypeError(f"task {task.id!r} compares nothing")
        ours, theirs = candidate.text, task.expected[0]
        worths: list[float] = []
        judges: list[tuple[str, str]] = []
        evidence: list[dict[str, object]] = []
        try:
            for number, model in enumerate(self.panel.models):
                for repeat in range(self.panel.repeats):
                    place = f"judge.{repeat}", str(number), model
                    ahead, by = await self._compare(task, (ours, theirs), ask, (*place, "ab"))
                    behind, by_too = await self._compare(task, (theirs, ours), ask, (*place, "ba"))
                    forward, back = _WORTH[ahead.better], 1.0 - _WORTH[behind.better]
                    worth = forward if forward == back else 0.5
                    worths.append(worth)
                    judges += [(model, by), (model, by_too)]
                    evidence.append(
                        {
                            "judge": model,
                            "answered_by": [by, by_too],
                            "repeat": repeat,
                            "forward": forward,
                            "back": back,
                            "quotes": [ahead.first_quote, ahead.second_quote],
                            "worth": worth,
                        }
                    )
        except NoVerdictError as error:
            return error.outcome
        return Score(fmean(worths), {"comparisons": evidence}, find_flags(candidate, judges))

    async def _compare(
        self, task: Task, pair: tuple[str, str], ask: Ask, place: tuple[str, str, str, str]
    ) -> tuple[Preference, str]:
        assert isinstance(task.evaluator, Compared)  # noqa: S101 - `evaluate` has looked
        round_, agent, model, order = place
        question = Question(
            "judge_pair",
            {
                "task": Untrusted(task.prompt),
                "question": task.evaluator.question,
                "first": Untrusted(pair[0]),
                "second": Untrusted(pair[1]),
            },
            preference_schema(),
            model,
            agent,
            f"{round_}.{order}",
        )
        return await ask_verdict(
            self.panel, self.prompts, ask, question, lambda reply: parse_preference(reply, *pair)
        )
