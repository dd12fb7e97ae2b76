"""Models as judges: several, several times, blind to the arm, each verdict checked here.

A reply that is no valid verdict is asked for once more; after that there is no score, since an
invented one would be worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final, TypeVar

from cert.coordination.evaluator import Reason, Score, Unscored
from cert.coordination.evaluator_parameters import Judged
from cert.coordination.judge_reply import (
    MAX_SCORE,
    InvalidVerdictError,
    Mark,
    marks_schema,
    parse_marks,
)
from cert.coordination.prompts import Untrusted
from cert.coordination.protocol import CallError, CallFailure, StopReason
from cert.coordination.transcript import Purpose, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cert.coordination.evaluator import Candidate
    from cert.coordination.plan import JudgePanel
    from cert.coordination.prompts import Prompts
    from cert.coordination.tasks import Task
    from cert.coordination.transcript import Ask

SELF_PREFERENCE_RISK: Final = "self_preference_risk"
"""Flag of a score where a judge may have judged itself: models prefer what they wrote."""

T = TypeVar("T")
Values = dict[str, str | Untrusted | tuple[Untrusted, ...]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's reply, in one repeat.

    Attributes:
        judge: The model that was asked.
        answered_by: The model that answered, in the server's words.
        repeat: From 0.
        marks: One a criterion.
    """

    judge: str
    answered_by: str
    repeat: int
    marks: tuple[Mark, ...]

    @property
    def value(self) -> float:
        """Mean score over the highest one, in [0, 1]."""
        return fmean(mark.score for mark in self.marks) / MAX_SCORE


@dataclass(frozen=True, slots=True)
class ModelJudge:
    """The evaluator of tasks with a rubric: the mean over judges, repeats and criteria."""

    panel: JudgePanel
    prompts: Prompts
    is_free: bool = False

    async def evaluate(self, task: Task, candidate: Candidate, ask: Ask) -> Score | Unscored:
        """Judge one candidate. Repeats follow one another, so that a failure ends them."""
        try:
            verdicts = await self.collect(task, candidate.text, ask)
        except NoVerdictError as error:
            return error.outcome
        return Score(
            fmean(one.value for one in verdicts),
            {
                "verdicts": [
                    {
                        "judge": one.judge,
                        "answered_by": one.answered_by,
                        "repeat": one.repeat,
                        "value": one.value,
                        "marks": {
                            mark.criterion: {"quote": mark.quote, "score": mark.score}
                            for mark in one.marks
                        },
                    }
                    for one in verdicts
                ]
            },
            find_flags(candidate, [(one.judge, one.answered_by) for one in verdicts]),
        )

    async def collect(self, task: Task, text: str, ask: Ask) -> list[Verdict]:
        """Ask all judges, all repeats.

        Raises:
            NoVerdictError: One of them gave none.
        """
        if not isinstance(task.evaluator, Judged):
            raise TypeError(f"task {task.id!r} has no rubric")
        rubric = task.evaluator.rubric
        values: Values = {
            "task": Untrusted(task.prompt),
            "reference": Untrusted(task.expected[0] if task.expected else ""),
            "candidate": Untrusted(text),
            "rubric": "\n".join(f"- {criterion.id}: {criterion.text}" for criterion in rubric),
        }
        schema = marks_schema(rubric)
        verdicts = []
        for number, model in enumerate(self.panel.models):
            for repeat in range(self.panel.repeats):
                question = Question("judge", values, schema, model, str(number), f"judge.{repeat}")
                marks, answered_by = await ask_verdict(
                    self.panel,
                    self.prompts,
                    ask,
                    question,
                    lambda reply: parse_marks(reply, rubric, text),
                )
                verdicts.append(Verdict(model, answered_by, repeat, marks))
        return verdicts


class NoVerdictError(Exception):
    """There is no verdict; `outcome` says why."""

    def __init__(self, outcome: Unscored) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Question:
    """What one judge is asked, once.

    Attributes:
        prompt: Id of the template; the second time with `_again`.
        values: For its places.
        schema: Of the reply.
        model: The judge.
        agent: Part of the key.
        round: Part of the key.
    """

    prompt: str
    values: Values
    schema: Mapping[str, object]
    model: str
    agent: str
    round: str


async def ask_verdict(
    panel: JudgePanel,
    prompts: Prompts,
    ask: Ask,
    question: Question,
    parse: Callable[[str], T],
) -> tuple[T, str]:
    """Ask a judge, and once more where its reply is not valid.

    Returns:
        What was parsed, and the model that answered.

    Raises:
        NoVerdictError: The call failed, or the second reply is not valid either.
    """
    fault = ""
    for suffix in ("", "_again"):
        values = question.values | ({"fault": fault} if suffix else {})
        request = Request(
            round=question.round + suffix.replace("_", "."),
            agent=question.agent,
            model=question.model,
            prompt=prompts[question.prompt + suffix].render(values),
            max_tokens=panel.max_tokens,
            timeout_s=panel.timeout_s,
            schema=question.schema,
            purpose=Purpose.JUDGE,
        )
        try:
            reply = await ask(request)
            # What it says in refusing may look like a verdict; it is none.
            said = "" if reply.stop_reason is StopReason.REFUSAL else reply.text
            return parse(said), reply.model
        except InvalidVerdictError as error:
            fault = error.message
        except CallError as error:
            # A client that holds replies to the schema itself says so in this way.
            if error.failure is not CallFailure.INVALID:
                detail = f"{question.model}: {error.failure.value}"
                raise NoVerdictError(Unscored(Reason.JUDGE_FAILED, detail)) from error
            fault = "it was not of the form asked for"
    raise NoVerdictError(Unscored(Reason.JUDGE_INVALID, f"{question.model}: {fault}"))


def find_flags(candidate: Candidate, judges: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Flags of a score: whether a judge, as asked or as answered, wrote what it judged."""
    names = {name for pair in judges for name in pair}
    return (SELF_PREFERENCE_RISK,) if names & candidate.models else ()
