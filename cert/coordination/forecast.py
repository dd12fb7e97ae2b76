"""How many calls a plan makes, and what they may take at most, before any of them is made.

The arrangements and the judges are run as they are, on replies that are as long as they may be.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from cert.coordination.budget import bound_input_tokens
from cert.coordination.evaluator import Candidate
from cert.coordination.orchestrator import choose_evaluator
from cert.coordination.plan import MATCHED, Kind
from cert.coordination.prompts import MAX_UNTRUSTED_CHARS
from cert.coordination.protocol import Reply, StopReason, Usage
from cert.coordination.strategies import Setup, arrange
from cert.coordination.transcript import Purpose, build_call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cert.coordination.plan import ArmPlan, Plan
    from cert.coordination.prices import Prices
    from cert.coordination.tasks import Task
    from cert.coordination.transcript import Request

_FAULT_TOKENS: Final = 1000
"""More than what a judge is told of its first reply when it is asked again."""
_NOTE_TOKENS: Final = 40
"""More than what stands in a prompt for the middle of a text that is left out."""
_WIDE: Final = "\U0001f600"
"""A character of four bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Takings:
    """What some calls take.

    Attributes:
        least_calls: If each reply is whole, each verdict valid at once, and one sample enough.
        most_calls: If each verdict is asked for twice, and samples never use up their tokens.
        most_input_tokens: See `count_calls`.
        most_output_tokens: The calls' `max_tokens`.
        most_usd: What they cost at most; None without prices.
    """

    least_calls: int = 0
    most_calls: int = 0
    most_input_tokens: int = 0
    most_output_tokens: int = 0
    most_usd: Decimal | None = None

    def __add__(self, other: Takings) -> Takings:
        """Both together."""
        usd = None
        if self.most_usd is not None and other.most_usd is not None:
            usd = self.most_usd + other.most_usd
        return Takings(
            least_calls=self.least_calls + other.least_calls,
            most_calls=self.most_calls + other.most_calls,
            most_input_tokens=self.most_input_tokens + other.most_input_tokens,
            most_output_tokens=self.most_output_tokens + other.most_output_tokens,
            most_usd=usd,
        )

    def __mul__(self, times: int) -> Takings:
        """As often as that."""
        return Takings(
            least_calls=self.least_calls * times,
            most_calls=self.most_calls * times,
            most_input_tokens=self.most_input_tokens * times,
            most_output_tokens=self.most_output_tokens * times,
            most_usd=None if self.most_usd is None else self.most_usd * times,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a plan takes.

    Attributes:
        arms: By name, in the order of the plan; what `best_of_n` has judged is its own.
        judges: Of all arms, and of the canaries.
    """

    arms: dict[str, Takings]
    judges: Takings

    @property
    def total(self) -> Takings:
        """All together."""
        return sum(self.arms.values(), self.judges)


def count_calls(plan: Plan, *, prices: Prices | None = None) -> Forecast:
    """Count the calls of a plan, and bound what they take.

    A run in which calls fail or replies are cut off makes fewer calls than the least: what builds
    on them is not asked. Attempts that fail are not counted, whatever a server charges for them.

    Input is bounded by the bytes of all that is known beforehand (templates, tasks, rubrics) as
    `bound_input_tokens` has it, and by `max_tokens` for each reply that a prompt holds: nobody's
    tokenizer takes more tokens than bytes, and a model reads its own reply in no more tokens than
    it wrote. Another model may need more for it, so among several models that part is an estimate.

    `self_consistency` and `best_of_n` spend no more, in and out together, than their reference may
    take and one sample with its verdicts; samples are `max_samples` at most.

    Args:
        plan: What is to be run; not from within a running event loop.
        prices: Of all models; None counts no costs.

    Raises:
        ConfigurationError: There is no price for a model.
    """
    return asyncio.run(_count(plan, prices))


async def _count(plan: Plan, prices: Prices | None) -> Forecast:
    nothing = Takings(most_usd=None if prices is None else Decimal())
    arms, judges = {arm.name: nothing for arm in plan.arms}, nothing
    for task in plan.tasks:
        spent: dict[str, int] = {}
        # What is held against an arm refers to one that refers to none.
        for arm in sorted(plan.arms, key=lambda one: one.reference is not None):
            least, most = [await _simulate(plan, task, arm, is_most=one) for one in (False, True)]
            taken = _take(least, most, Purpose.ARM, prices)
            spent[arm.name] = taken.most_input_tokens + taken.most_output_tokens
            if arm.kind in MATCHED and arm.reference is not None:
                dearest = None if prices is None else _dearest_usd(most.calls, prices)
                taken = _repeat(taken, arm.max_samples, spent[arm.reference], dearest)
            arms[arm.name] += taken * arm.replicates
            judges += _take(least, most, Purpose.JUDGE, prices) * arm.replicates
    for canary in plan.canaries:
        evaluator = choose_evaluator(plan, canary.task)
        runs = _Simulated(is_most=False), _Simulated(is_most=True)
        for run in runs:
            await evaluator.evaluate(canary.task, Candidate(canary.candidate), run)
        judges += _take(*runs, Purpose.JUDGE, prices)
    return Forecast(arms=arms, judges=judges)


async def _simulate(plan: Plan, task: Task, arm: ArmPlan, *, is_most: bool) -> _Simulated:
    """Run one replicate of an arm on replies that nobody gave; of samples there is one."""
    run = _Simulated(is_most=is_most)
    evaluator = choose_evaluator(plan, task)
    setup = Setup(arm, plan.prompts, arm.kind, evaluator)
    if arm.kind is Kind.PLACEBO and arm.reference is not None:
        reference = plan.arm(arm.reference)
        longest = _reply_text(max(agent.max_tokens for agent in reference.agents))
        setup = replace(setup, kind=reference.kind, donated=(longest,))
    arranged = await arrange(task, setup, run)
    await evaluator.evaluate(task, Candidate(arranged.text or ""), run)
    return run


@dataclass(frozen=True, slots=True)
class _Bound:
    """The most that one call takes."""

    purpose: Purpose
    model: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Simulated:
    """Answers whatever is asked, as long as it may be, and notes the most that it takes."""

    is_most: bool
    calls: list[_Bound] = field(default_factory=list)

    async def __call__(self, request: Request) -> Reply:
        is_again = "_again@" in request.prompt.name
        input_tokens = bound_input_tokens(build_call("forecast", request))
        input_tokens += _FAULT_TOKENS if is_again else 0
        self.calls.append(_Bound(request.purpose, request.model, input_tokens, request.max_tokens))
        if request.schema is None:
            text = _reply_text(request.max_tokens)
        else:
            text = _verdict(request) if is_again or not self.is_most else ""
        return Reply(
            text=text,
            stop_reason=StopReason.END_TURN,
            usage=Usage(input_tokens, request.max_tokens),
            model=request.model,
        )


def _reply_text(tokens: int) -> str:
    """A text of which a prompt holds as much as it may hold of a reply of so many tokens."""
    size = tokens + _NOTE_TOKENS
    if size <= MAX_UNTRUSTED_CHARS:
        return "x" * size
    if size <= 4 * MAX_UNTRUSTED_CHARS:
        return _WIDE * math.ceil(size / 4)
    # The middle is left out, and a client takes no reply of more than 8 MB.
    end = _WIDE * (MAX_UNTRUSTED_CHARS // 2)
    return end + "x" * 1_000_000 + end


def _verdict(request: Request) -> str:
    """A valid one: without quotes nothing is worth more than 0."""
    if request.prompt.name.startswith("judge_pair"):
        return json.dumps({"first_quote": "", "second_quote": "", "better": "neither"})
    properties: dict[str, object] = (request.schema or {})["properties"]  # type: ignore[assignment]
    return json.dumps({name: {"quote": "", "score": 0} for name in properties})


def _take(least: _Simulated, most: _Simulated, purpose: Purpose, prices: Prices | None) -> Takings:
    calls = [call for call in most.calls if call.purpose is purpose]
    return Takings(
        least_calls=sum(call.purpose is purpose for call in least.calls),
        most_calls=len(calls),
        most_input_tokens=sum(call.input_tokens for call in calls),
        most_output_tokens=sum(call.output_tokens for call in calls),
        most_usd=None if prices is None else _bound_usd(calls, prices),
    )


def _repeat(
    sample: Takings, count: int, budget_tokens: int, dearest_usd: Decimal | None
) -> Takings:
    """Take a sample as often as may be: its last one begins within the budget."""
    many, usd = sample * count, None
    if sample.most_usd is not None and dearest_usd is not None:
        usd = min(sample.most_usd * count, budget_tokens * dearest_usd + sample.most_usd)
    return Takings(
        least_calls=sample.least_calls,
        most_calls=many.most_calls,
        most_input_tokens=min(many.most_input_tokens, budget_tokens + sample.most_input_tokens),
        most_output_tokens=min(many.most_output_tokens, budget_tokens + sample.most_output_tokens),
        most_usd=usd,
    )


def _dearest_usd(calls: Iterable[_Bound], prices: Prices) -> Decimal:
    """The most that one token of any of the calls costs."""
    return max(
        prices.price(call.model).bound_usd(input_tokens=tokens, output_tokens=1 - tokens)
        for call in calls
        for tokens in (0, 1)
    )


def _bound_usd(calls: Iterable[_Bound], prices: Prices) -> Decimal:
    bounds = (
        prices.price(call.model).bound_usd(
            input_tokens=call.input_tokens, output_tokens=call.output_tokens
        )
        for call in calls
    )
    return sum(bounds, Decimal())
