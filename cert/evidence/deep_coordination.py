"""A comparison of arms, followed through its records: everything in them follows from the plan.

A call is one that the plan asks for; a replicate is one of the plan's, and its tokens and cost are
those of its calls; the result is what `build_result` makes of plan, replicates and calls. What
cannot be derived again are the scores: they rest on texts, and on the word of judges.

Memory grows with the calls of replicates that are under way, and with the replicates; it is freed
at the run's end. Of what earlier runs' judges said, the result's own word is taken.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cert.evidence.coordination_plan import CANARY_ARM
from cert.evidence.coordination_records import REPLICATE_CONTENT
from cert.evidence.recompute import compare, is_same
from cert.ledger.canonical import canonical_bytes
from cert.ledger.findings import Problem
from cert.observability.redaction import MASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

RELATIVE_ERROR: Final = 1e-9
ABSOLUTE_ERROR: Final = 1e-12
"""Statistics come out a little differently on other machines' linear algebra."""

_STOPS: Final = frozenset({"fatal", "later", "budget"})
"""After these the run stopped, and the call is made again when it goes on."""
_SELECT: Final = "select."
"""Begins the rounds in which `best_of_n` has its samples judged, on the arm's account."""
_MAX_DIFFERENCES: Final = 20
_SHOWN_CHARS: Final = 200
_FORGOTTEN: Final = frozenset({*REPLICATE_CONTENT, "calls"})
_UNDERIVABLE: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
"""What computing a result raises for a plan that nobody could have run."""

_Unit = tuple[str, str, int]


class _Call(NamedTuple):
    """What a replicate takes of a call.

    Attributes:
        is_arm: Whether it is on the arm's account.
        tokens: All that it was charged; None where nobody knows.
        cost_usd: Of them; None where there is no price, or nobody knows.
        stops: Whether it is to be made again.
    """

    is_arm: bool
    tokens: int | None
    cost_usd: float | None
    stops: bool


class Comparison:
    """The records of one run that is a comparison, in their order.

    Args:
        policy: The plan, as it is registered.
        is_whole: False where records of the run are gone, so that nothing is derived from all.

    Raises:
        LookupError: It does not follow the schema, likewise TypeError.
    """

    def __init__(self, policy: Mapping[str, Any], *, is_whole: bool) -> None:
        # numpy is slow to load, and most ledgers have no comparison.
        from cert.evidence.coordination_result import SpendTally  # noqa: PLC0415

        plan = policy["plan"]
        panel = plan["panel"]
        self._policy = policy
        self._is_whole = is_whole
        self._tasks = frozenset(task["id"] for task in plan["tasks"])
        self._canaries = frozenset(canary["id"] for canary in plan["canaries"])
        self._arms = {arm["name"]: arm for arm in plan["arms"]}
        self._agents = {name: _asked(arm["agents"]) for name, arm in self._arms.items()}
        self._judges = frozenset[tuple[object, ...]]()
        if panel is not None:
            self._judges = _asked([panel | {"model": one} for one in panel["models"]])
        self._under_way: dict[_Unit, dict[str, _Call]] = {}
        self._replicates: dict[_Unit, Mapping[str, Any]] = {}
        self._spend = SpendTally()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether its result was there."""
        return self._is_over

    def miss(self, kind: str) -> None:
        """Pass over the next record, which cannot be read here: no result follows any more."""
        self._is_whole = False
        self._is_over = self._is_over or kind == "coordination"

    def take(self, kind: str, members: Mapping[str, Any]) -> list[Problem]:
        """Take the next record.

        Args:
            kind: `call`, `replicate` or `coordination`.
            members: The member of that name, following the schema.
        """
        if self._is_over:
            return [Problem("run", "the result of its run was recorded before it")]
        if kind == "call":
            return list(self._take_call(members))
        if kind == "replicate":
            return list(self._take_replicate(members))
        return self._take_result(members)

    def _take_call(self, call: Mapping[str, Any]) -> Iterator[Problem]:
        self._spend.add(call)
        unit = _unit_of(call)
        if not self._is_planned(unit):
            yield Problem("call", "the plan has no such replicate", found=_short(_name(unit)))
            return
        key = f"{_name(unit)}/{call['round']}/{call['agent']}"
        if call["key"] != key:
            yield _problem("call", "its key is not made of its parts", key, call["key"])
        yield from self._look_at_asking(call)
        if unit in self._replicates:
            yield Problem("call", "its replicate was recorded before it")
            return
        calls = self._under_way.setdefault(unit, {})
        if key in calls and not calls[key].stops:
            yield Problem("call", "an earlier record is of the same call", found=_short(key))
        calls[key] = _describe(call)

    def _look_at_asking(self, call: Mapping[str, Any]) -> Iterator[Problem]:
        """Look whether a call was asked as the plan has it."""
        policy, template = self._policy, call["template"]
        digest = policy["plan"]["prompts"].get(template["name"])
        if template["digest"] != digest:
            words = "its template is not the plan's"
            yield _problem("call", words, digest or "none", template["digest"])
        if (call["model"], call["max_tokens"], call["timeout_s"]) not in self._may_ask(call):
            words = "the plan has nobody asked so: model, max_tokens, timeout_s"
            yield Problem("call", words, found=_short(call["model"]))
        is_priced = policy["prices"] is not None and call["usage"] is not None
        if (call["cost_usd"] is not None) != is_priced:
            yield Problem("call", "a call has a cost exactly where it has prices and usage")
        if "request" in call and MASK not in call["model"]:
            digest = _digest_of_request(call)
            if call["request_digest"] != digest:
                words = "its request is not that of the digest"
                yield _problem("call", words, digest, call["request_digest"])

    def _may_ask(self, call: Mapping[str, Any]) -> frozenset[tuple[object, ...]]:
        if call["purpose"] == "judge":
            return self._judges
        arm = self._arms.get(call["arm"])
        if arm is None:
            return frozenset()
        if arm["kind"] == "best_of_n" and call["round"].startswith(_SELECT):
            return self._judges
        return self._agents[call["arm"]]

    def _take_replicate(self, replicate: Mapping[str, Any]) -> Iterator[Problem]:
        unit = _unit_of(replicate)
        if not self._is_planned(unit):
            yield Problem("replicate", "the plan has no such replicate", found=_short(_name(unit)))
            return
        if unit in self._replicates:
            words = "an earlier record is of the same replicate"
            yield Problem("replicate", words, found=_short(_name(unit)))
            return
        yield from self._look_at_calls(replicate, self._under_way.pop(unit, {}))
        self._replicates[unit] = {
            name: value for name, value in replicate.items() if name not in _FORGOTTEN
        }

    def _look_at_calls(
        self, replicate: Mapping[str, Any], calls: Mapping[str, _Call]
    ) -> Iterator[Problem]:
        listed = replicate["calls"]
        named = dict.fromkeys(listed)
        known = [key for key in named if key in calls and not calls[key].stops]
        if len(named) < len(listed):
            yield Problem("replicate", "it names a call twice")
        left_out = [key for key, call in calls.items() if not call.stops and key not in named]
        if left_out:
            words = f"it leaves out {len(left_out)} of its calls"
            yield Problem("replicate", words, expected=_short(left_out[0]))
        if len(known) < len(named):
            if self._is_whole:
                key = next(one for one in named if one not in calls or calls[one].stops)
                words = "no earlier record is of a call that it names"
                yield Problem("replicate", words, found=_short(key))
            return
        taken = [calls[key] for key in known]
        tokens = _tokens_of(taken)
        if replicate["tokens"] != tokens:
            words = "its tokens are not those of its calls"
            yield _problem("replicate", words, tokens, replicate["tokens"])
        cost_usd = None if tokens is None or self._policy["prices"] is None else _cost_of(taken)
        if not _is_same_cost(replicate["cost_usd"], cost_usd):
            words = "its cost is not that of its calls"
            yield _problem("replicate", words, cost_usd, replicate["cost_usd"])

    def _take_result(self, stated: Mapping[str, Any]) -> list[Problem]:
        self._is_over = True
        problems = self._recompute(stated) if self._is_whole else []
        self._under_way.clear()
        self._replicates.clear()
        return problems

    def _recompute(self, stated: Mapping[str, Any]) -> list[Problem]:
        from cert.evidence.coordination_result import build_result  # noqa: PLC0415 - as above

        judges = stated["judges"]
        try:
            result = build_result(
                self._policy,
                self._replicates.values(),
                self._spend.members(),
                earlier=[] if judges is None else judges["earlier"],
            )
        except _UNDERIVABLE as error:
            words = f"nothing follows from its records: {type(error).__name__}: {error}"
            return [Problem("result", _short(words))]
        recorded = {name: value for name, value in stated.items() if name != "policy"}
        differences = [*compare("", recorded, result, is_same=_is_close)]
        return [
            Problem(
                "verdict" if one.path.endswith(".verdict") else "result",
                _short(str(one)),
                expected=None if one.recomputed is None else _short(one.recomputed),
                found=None if one.recorded is None else _short(one.recorded),
            )
            for one in differences[:_MAX_DIFFERENCES]
        ]

    def _is_planned(self, unit: _Unit) -> bool:
        task, name, number = unit
        if name == CANARY_ARM:
            return task in self._canaries and number == 0
        return (
            task in self._tasks and name in self._arms and number < self._arms[name]["replicates"]
        )


def _asked(agents: Iterable[Mapping[str, Any]]) -> frozenset[tuple[object, ...]]:
    return frozenset((one["model"], one["max_tokens"], one["timeout_s"]) for one in agents)


def _unit_of(members: Mapping[str, Any]) -> _Unit:
    return members["task"], members["arm"], members["replicate"]


def _name(unit: _Unit) -> str:
    return f"{unit[0]}/{unit[1]}/{unit[2]}"


def _describe(call: Mapping[str, Any]) -> _Call:
    usage, failure = call["usage"], call["failure"]
    tokens: int | None = 0
    if usage is not None:
        tokens = sum(usage.values())
    elif failure is not None and call["is_unknown_billed"]:
        tokens = None
    stops = failure is not None and failure["kind"] in _STOPS
    return _Call(call["purpose"] == "arm", tokens, call["cost_usd"], stops)


def _tokens_of(calls: Iterable[_Call]) -> int | None:
    total = 0
    for call in calls:
        if call.is_arm:
            if call.tokens is None:
                return None
            total += call.tokens
    return total


def _cost_of(calls: Iterable[_Call]) -> float:
    return math.fsum(call.cost_usd or 0.0 for call in calls if call.is_arm)


def _is_same_cost(recorded: float | None, recomputed: float | None) -> bool:
    if recorded is None or recomputed is None:
        return recorded is recomputed
    return math.isclose(recorded, recomputed, rel_tol=RELATIVE_ERROR)


def _digest_of_request(call: Mapping[str, Any]) -> str:
    request = call["request"]
    asked = {
        "model": call["model"],
        "system": request["system"],
        "messages": [[one["role"], one["text"]] for one in request["messages"]],
        "max_tokens": call["max_tokens"],
        "schema": request["schema"],
    }
    return "sha256:" + hashlib.sha256(canonical_bytes(asked)).hexdigest()


def _is_close(recorded: object, recomputed: object) -> bool:
    """Whether two values are the same, or numbers that differ by rounding."""
    if isinstance(recorded, float) or isinstance(recomputed, float):
        return (
            isinstance(recorded, int | float)
            and isinstance(recomputed, int | float)
            and not isinstance(recorded, bool)
            and not isinstance(recomputed, bool)
            and math.isclose(recorded, recomputed, rel_tol=RELATIVE_ERROR, abs_tol=ABSOLUTE_ERROR)
        )
    return is_same(recorded, recomputed)


def _problem(code: str, words: str, expected: object, found: object) -> Problem:
    return Problem(code, words, expected=_short(str(expected)), found=_short(str(found)))


def _short(text: str) -> str:
    return text[:_SHOWN_CHARS]
