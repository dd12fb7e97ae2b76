"""Derive summary, checks and verdict of a record again, from the record alone.

The numbers of the tokens give the summary. The checks' thresholds, with `min_tokens` and
`incomplete`, give the policy, whose digest must be the one stated. Summary and policy give
outcomes, reasons and verdict. Whatever the record says otherwise is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cert.assessment.assess import assess
from cert.assessment.policy import Policy, Threshold
from cert.evidence.numbers import decode_number
from cert.evidence.record import describe_assessment, describe_signals
from cert.signals.summary import summarize
from cert.signals.trace import SignalTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

EXP_RELATIVE_ERROR: Final = 1e-14
"""Sums, means and quantiles come out bit for bit; `exp` may differ by an ulp or two between C
libraries, so a perplexity may differ this much, relatively, and the recorded one is judged."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One member of a record that does not follow from the others.

    Attributes:
        path: For example `signals.tokens`; empty where nothing can be recomputed at all.
        message: What is wrong with it, in words.
        recorded: What the record says, as Python writes it; None where it says nothing.
        recomputed: What follows, likewise.
    """

    path: str
    message: str
    recorded: str | None = None
    recomputed: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def recompute(record: Mapping[str, Any]) -> list[Difference]:
    """Recompute one record and say every difference.

    It shows that a record agrees with itself. That its numbers are those of the model is for a
    replay to show, that its policy is the one that was agreed on, for whoever knows that digest.

    Args:
        record: As built, or as read back from its bytes. Records of a kind without measurements
            (error, refused) have nothing to recompute.

    Returns:
        The differences, for example `signals.tokens: recorded 3, recomputed 2`; empty where
        all agree. A record without the parts it takes gives one that says so.
    """
    if record.get("kind") != "analysis":
        return []
    try:
        return list(_differences_of(record))
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        return [Difference("", f"cannot be recomputed: {type(error).__name__}: {error}")]


def is_rounding(recorded: float, perplexity: float) -> bool:
    """Whether a recorded perplexity differs from ours as two C libraries may differ."""
    return math.isclose(recorded, perplexity, rel_tol=EXP_RELATIVE_ERROR)


def _differences_of(record: Mapping[str, Any]) -> Iterator[Difference]:
    summary = summarize(_trace(record["generation"]))
    stated = record["signals"]["perplexity"]
    if stated is not None and summary.perplexity is not None:
        perplexity = decode_number(stated)
        if is_rounding(perplexity, summary.perplexity):
            summary = replace(summary, perplexity=perplexity)
    assessment = assess(
        summary,
        _policy(record["assessment"]),
        finish_reason=record["generation"]["finish_reason"],
    )
    yield from compare("signals", record["signals"], describe_signals(summary))
    yield from compare("assessment", record["assessment"], describe_assessment(assessment))


def _trace(generation: Mapping[str, Any]) -> SignalTrace:
    logprobs = tuple(map(decode_number, generation["logprobs"]))
    count = len(logprobs)
    # Neither tokens nor ranks enter a summary, and omitted content has none.
    trace = SignalTrace(
        token_ids=tuple(generation.get("token_ids", range(count))),
        logprobs=logprobs,
        entropies=tuple(map(decode_number, generation["entropies"])),
        top_k_entropies=tuple(map(decode_number, generation["top_k_entropies"])),
        logit_margins=tuple(map(decode_number, generation["logit_margins"])),
        probability_margins=tuple(map(decode_number, generation["probability_margins"])),
        ranks=tuple(generation.get("ranks", range(count))),
    )
    for name in SignalTrace.__slots__:
        if len(getattr(trace, name)) != count:
            raise ValueError(f"{count} logprobs but {len(getattr(trace, name))} {name}")
    return trace


def _policy(assessment: Mapping[str, Any]) -> Policy:
    stated = assessment["policy"]
    return Policy(
        id=stated["id"],
        version=stated["version"],
        checks=tuple(
            Threshold(check["signal"], check["op"], check["threshold"])
            for check in assessment["checks"]
        ),
        min_tokens=stated["min_tokens"],
        incomplete=stated["incomplete"],
    )


def is_same(recorded: object, recomputed: object) -> bool:
    """Whether two values without members are one to JSON; 50 and 50.0 are, True and 1 are not."""
    return recorded == recomputed and isinstance(recorded, bool) == isinstance(recomputed, bool)


def compare(
    path: str,
    recorded: object,
    recomputed: object,
    *,
    is_same: Callable[[object, object], bool] = is_same,
) -> Iterator[Difference]:
    """Say every difference between two values of JSON.

    Args:
        path: Of the values.
        recorded: One.
        recomputed: The other, which is right.
        is_same: Judges values without members.
    """
    if isinstance(recorded, dict) and isinstance(recomputed, dict):
        for name in sorted(recorded.keys() | recomputed.keys()):
            below = f"{path}.{name}" if path else name
            if name not in recomputed:
                yield Difference(below, "recorded, but not part of it")
            elif name not in recorded:
                yield Difference(below, "not recorded")
            else:
                yield from compare(below, recorded[name], recomputed[name], is_same=is_same)
    elif isinstance(recorded, list) and isinstance(recomputed, list):
        if len(recorded) != len(recomputed):
            yield _difference(path, f"{len(recorded)} items", str(len(recomputed)))
        for place, (one, other) in enumerate(zip(recorded, recomputed, strict=False)):
            yield from compare(f"{path}[{place}]", one, other, is_same=is_same)
    elif not is_same(recorded, recomputed):
        yield _difference(path, repr(recorded), repr(recomputed))


def _difference(path: str, recorded: str, recomputed: str) -> Difference:
    return Difference(path, f"recorded {recorded}, recomputed {recomputed}", recorded, recomputed)
