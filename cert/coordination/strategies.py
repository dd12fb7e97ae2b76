"""Arrangements of agents: each a function from a task to a final answer, by way of `ask`.

They hold no state and share none; what they know of the run stands in `Setup`. An agent's reply is
given to other agents as untrusted text. A call that fails ends the arrangement.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cert.coordination.evaluator import Candidate, Reason, Unscored
from cert.coordination.plan import Decide, Kind
from cert.coordination.prompts import Untrusted
from cert.coordination.protocol import CallError
from cert.coordination.strategies_vote import choose_by_vote
from cert.coordination.transcript import Purpose, Request, total_tokens
from cert.coordination.usable import find_cut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cert.coordination.evaluator import Evaluator
    from cert.coordination.plan import ArmPlan
    from cert.coordination.prompts import Prompts, Rendered
    from cert.coordination.protocol import Reply
    from cert.coordination.tasks import Task
    from cert.coordination.transcript import Ask

DECIDE_ROUND: Final = "decide"


@dataclass(frozen=True, slots=True)
class Setup:
    """What an arrangement works with.

    Attributes:
        arm: Agents, rounds, decision.
        prompts: Templates.
        kind: The arrangement; a placebo's is its reference's.
        evaluator: Chooses among samples, in `best_of_n`.
        budget_tokens: What C may spend.
        donated: Texts about another task, which take the place of other agents' (E).
    """

    arm: ArmPlan
    prompts: Prompts
    kind: Kind
    evaluator: Evaluator
    budget_tokens: int | None = None
    donated: tuple[str, ...] | None = None

    def others(self, texts: Sequence[str]) -> tuple[Untrusted, ...]:
        """What an agent is shown as the texts of others."""
        if self.donated:
            texts = [self.donated[at % len(self.donated)] for at in range(len(texts))]
        return tuple(map(Untrusted, texts))


@dataclass(frozen=True, slots=True)
class Member:
    """An agent's own first and last answer to the task.

    Attributes:
        agent: Its number.
        model: Who was asked.
        first: Before it saw anybody else's answer; None where it never answered so.
        last: Its last one; the aggregated answer is nobody's.
    """

    agent: str
    model: str
    first: Reply | None
    last: Reply


@dataclass(frozen=True, slots=True)
class Arranged:
    """What an arrangement came to.

    Attributes:
        text: The reply with the final answer; None where there is none to judge.
        unusable: Why there is none.
        members: The agents' own answers.
    """

    text: str | None
    unusable: Reason | None = None
    members: tuple[Member, ...] = ()


async def arrange(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """Let a task be answered in the way of an arm.

    Raises:
        CallError: A call failed; which one stands in the transcript.
    """
    return await _ARRANGEMENTS[setup.kind](task, setup, ask)


async def single(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """A: one call."""
    reply = await ask(first_request(task, setup))
    return _finish(task, reply, [_member(setup, 0, reply, reply)])


def first_request(task: Task, setup: Setup) -> Request:
    """What the first agent is asked first."""
    return _request(setup, _solve(task, setup))


async def self_refine(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """D: one agent goes over its own answer, `rounds` times."""
    first = reply = await ask(first_request(task, setup))
    for number in range(1, setup.arm.rounds + 1):
        prompt = setup.prompts["self_refine"].render(
            {**_question(task, setup), "previous": Untrusted(reply.text)}
        )
        reply = await ask(_request(setup, prompt, round_=str(number)))
    return _finish(task, reply, [_member(setup, 0, first, reply)])


async def sequential(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """B: a chain in the order of the agents; the last one's answer counts."""
    reply = await ask(first_request(task, setup))
    members = [_member(setup, 0, reply, reply)]
    for number in range(1, len(setup.arm.agents)):
        prompt = setup.prompts["refine"].render(
            {**_question(task, setup), "previous": setup.others([reply.text])}
        )
        reply = await ask(_request(setup, prompt, round_=str(number), agent=number))
        members.append(_member(setup, number, None, reply))
    return _finish(task, reply, members)


async def parallel(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """B: independent answers, then a decision."""
    replies = await _answer_all(task, setup, ask)
    members = [_member(setup, at, reply, reply) for at, reply in enumerate(replies)]
    return await _decide(task, setup, ask, replies, members)


async def debate(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """B: independent answers, `rounds` rounds of reading the others' last ones, then a decision."""
    firsts = replies = await _answer_all(task, setup, ask)
    for number in range(1, setup.arm.rounds + 1):
        requests = []
        for at, own in enumerate(replies):
            others = [reply.text for peer, reply in enumerate(replies) if peer != at]
            prompt = setup.prompts["debate"].render(
                {
                    **_question(task, setup),
                    "own": Untrusted(own.text),
                    "peers": setup.others(others),
                }
            )
            requests.append(_request(setup, prompt, round_=str(number), agent=at))
        replies = await ask_all(ask, requests)
    members = [
        _member(setup, at, *pair) for at, pair in enumerate(zip(firsts, replies, strict=True))
    ]
    return await _decide(task, setup, ask, replies, members)


async def self_consistency(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """C: samples of one agent until the budget is spent, the last one whole; then a vote.

    The last sample may go over the budget, never the one before: C has at least the tokens of
    the arm that it is held against, so a gain over C is none of money.
    """
    replies: list[Reply] = []
    spent = 0
    while not replies or (
        spent < (setup.budget_tokens or 0) and len(replies) < setup.arm.max_samples
    ):
        request = _request(setup, _solve(task, setup), sample=len(replies))
        replies.append(await ask(request))
        spent += total_tokens(replies[-1].usage)
    members = [_sample(setup, at, reply) for at, reply in enumerate(replies)]
    return _vote(task, replies, members)


async def best_of_n(task: Task, setup: Setup, ask: Ask) -> Arranged:
    """C: samples, each judged at once without the expected answer; the first of the best counts.

    Judging is part of the arrangement: it is paid from the same budget.
    """
    blind = replace(task, expected=())
    meter = _Meter(ask)
    replies: list[Reply] = []
    best: tuple[float, int] | None = None
    missing: list[Reason] = []
    while not replies or (
        meter.spent < (setup.budget_tokens or 0) and len(replies) < setup.arm.max_samples
    ):
        at = len(replies)
        reply = await meter(_request(setup, _solve(task, setup), sample=at))
        replies.append(reply)
        if (cut := find_cut(blind, reply)) is not None:
            missing.append(cut)
            continue
        meter.prefix = f"select.{at}."
        outcome = await setup.evaluator.evaluate(
            blind, Candidate(reply.text, frozenset({reply.model})), meter
        )
        meter.prefix = ""
        if isinstance(outcome, Unscored):
            missing.append(outcome.reason)
        elif best is None or outcome.value > best[0]:
            best = outcome.value, at
    members = [_sample(setup, at, reply) for at, reply in enumerate(replies)]
    if best is None:
        return Arranged(None, missing[0], tuple(members))
    return _finish(task, replies[best[1]], members)


async def ask_all(ask: Ask, requests: Sequence[Request]) -> list[Reply]:
    """Make calls at the same time, and wait for all of them even if one fails: all are paid for.

    Raises:
        CallError: The first failure, in the order of the requests.
    """
    outcomes = await asyncio.gather(*map(ask, requests), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, CallError)):
        raise error
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


class _Meter:
    """Counts the tokens of what is asked through it, and marks rounds and whose cost they are."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.spent = 0
        self.prefix = ""

    async def __call__(self, request: Request) -> Reply:
        if self.prefix:
            request = replace(request, round=self.prefix + request.round, purpose=Purpose.ARM)
        reply = await self._ask(request)
        self.spent += total_tokens(reply.usage)
        return reply


async def _answer_all(task: Task, setup: Setup, ask: Ask) -> list[Reply]:
    prompt = _solve(task, setup)
    requests = [_request(setup, prompt, agent=at) for at in range(len(setup.arm.agents))]
    return await ask_all(ask, requests)


async def _decide(
    task: Task, setup: Setup, ask: Ask, replies: Sequence[Reply], members: Sequence[Member]
) -> Arranged:
    if setup.arm.decide is Decide.VOTE:
        return _vote(task, replies, members)
    texts = setup.others([reply.text for reply in replies])
    prompt = setup.prompts["aggregate"].render({**_question(task, setup), "peers": texts})
    return _finish(task, await ask(_request(setup, prompt, round_=DECIDE_ROUND)), members)


def _vote(task: Task, replies: Sequence[Reply], members: Sequence[Member]) -> Arranged:
    whole = [reply for reply in replies if find_cut(task, reply) is None]
    if not whole:
        return _finish(task, replies[0], members)
    at = choose_by_vote(task, [reply.text for reply in whole])
    return _finish(task, whole[at], members)


def _finish(task: Task, reply: Reply, members: Sequence[Member]) -> Arranged:
    cut = find_cut(task, reply)
    return Arranged(None if cut else reply.text, cut, tuple(members))


def _member(setup: Setup, at: int, first: Reply | None, last: Reply) -> Member:
    return Member(str(at), setup.arm.agents[at].model, first, last)


def _sample(setup: Setup, at: int, reply: Reply) -> Member:
    return Member(str(at), setup.arm.agents[0].model, reply, reply)


def _question(task: Task, setup: Setup) -> dict[str, str | Untrusted | tuple[Untrusted, ...]]:
    form = "answer_text" if task.is_free_text else "answer_line"
    return {"task": task.prompt, "form": setup.prompts[form].user}


def _solve(task: Task, setup: Setup) -> Rendered:
    return setup.prompts["solve"].render(_question(task, setup))


def _request(
    setup: Setup, prompt: Rendered, *, round_: str = "0", agent: int = 0, sample: int | None = None
) -> Request:
    spec = setup.arm.agents[agent]
    return Request(
        round=round_,
        agent=str(agent if sample is None else sample),
        model=spec.model,
        prompt=prompt,
        max_tokens=spec.max_tokens,
        timeout_s=spec.timeout_s,
    )


_ARRANGEMENTS: Final[dict[Kind, Callable[[Task, Setup, Ask], Awaitable[Arranged]]]] = {
    Kind.SINGLE: single,
    Kind.SEQUENTIAL: sequential,
    Kind.PARALLEL: parallel,
    Kind.DEBATE: debate,
    Kind.SELF_CONSISTENCY: self_consistency,
    Kind.BEST_OF_N: best_of_n,
    Kind.SELF_REFINE: self_refine,
}
