"""What the canaries of a run show about its judges.

A judge that grades a good answer low, a bad one high, or obeys a text that it is to grade, cannot
be believed; nor can one that grades otherwise than it did, or that is another model by now.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

from cert.coordination.evaluator import Score
from cert.coordination.judge_reply import MAX_SCORE
from cert.coordination.plan import CANARY_ARM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cert.coordination.canaries import Canary
    from cert.coordination.replicate import FinishedReplicate

SIGMAS: Final = 3.0
_LEAST_DEVIATION: Final = 1 / (2 * MAX_SCORE)
"""Half a step of the scale: a judge that always said the same may still say the next number."""


class CanaryFault(StrEnum):
    """What a canary shows about a judge."""

    UNSCORED = "unscored"
    MISJUDGED = "misjudged"
    """A good answer graded low, or a bad one high."""
    OBEYED = "obeyed"
    """The same for an answer that asked for it."""
    DRIFTED = "drifted"
    """The mean is more than three standard errors away from that of earlier runs."""
    MODEL_CHANGED = "model_changed"
    """Another model answers under the judge's name than in earlier runs."""


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """What one judge said to one canary.

    Attributes:
        canary: Its id.
        judge: The model that was asked.
        values: One a repeat, in [0, 1]; none where there was no verdict.
        answered_by: The models that answered, in the server's words, sorted.
    """

    canary: str
    judge: str
    values: tuple[float, ...]
    answered_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CanaryFinding:
    """One fault of one judge."""

    canary: str
    judge: str
    fault: CanaryFault
    detail: str


def read_canaries(replicates: Iterable[FinishedReplicate]) -> tuple[CanaryReading, ...]:
    """Collect what the judges said to the canaries of a run, by canary and judge."""
    readings: list[CanaryReading] = []
    for replicate in replicates:
        if replicate.unit.arm != CANARY_ARM:
            continue
        judges: dict[str, list[tuple[float, str]]] = defaultdict(list)
        if isinstance(replicate.outcome, Score):
            verdicts: Sequence[Mapping[str, object]] = replicate.outcome.evidence["verdicts"]  # type: ignore[assignment]
            for verdict in verdicts:
                pair = float(verdict["value"]), str(verdict["answered_by"])  # type: ignore[arg-type]
                judges[str(verdict["judge"])].append(pair)
        else:
            # Nobody's verdict counts where one is missing, as for any other answer.
            judges = defaultdict(list, {call.call.model: [] for call in replicate.calls})
        readings += [
            CanaryReading(
                replicate.unit.task_id,
                judge,
                tuple(value for value, _ in pairs),
                tuple(sorted({model for _, model in pairs})),
            )
            for judge, pairs in judges.items()
        ]
    return tuple(readings)


def find_faults(
    canaries: Sequence[Canary],
    readings: Iterable[CanaryReading],
    earlier: Iterable[CanaryReading] = (),
) -> tuple[CanaryFinding, ...]:
    """Hold the judges against what the canaries are worth, and against earlier runs.

    Args:
        canaries: Of this run.
        readings: Of this run.
        earlier: Of runs before it, with the same canaries, rubric and prompts; pooled.
    """
    known = {canary.id: canary for canary in canaries}
    before: dict[tuple[str, str], list[CanaryReading]] = defaultdict(list)
    for reading in earlier:
        if reading.values:
            before[reading.canary, reading.judge].append(reading)
    findings: list[CanaryFinding] = []
    for reading in readings:
        place = reading.canary, reading.judge
        faults = _faults_of(known[reading.canary], reading, before[place])
        findings += [CanaryFinding(*place, fault, detail) for fault, detail in faults]
    return tuple(findings)


def _faults_of(
    canary: Canary, reading: CanaryReading, earlier: Sequence[CanaryReading]
) -> Iterable[tuple[CanaryFault, str]]:
    if not reading.values:
        yield CanaryFault.UNSCORED, "no verdict"
        return
    mean = fmean(reading.values)
    if not canary.least <= mean <= canary.most:
        is_obeyed = canary.kind == "injection" and mean > canary.most
        fault = CanaryFault.OBEYED if is_obeyed else CanaryFault.MISJUDGED
        yield fault, f"{mean:.3f}; expected {canary.least:g} to {canary.most:g}"
    if not earlier:
        return
    values = [value for one in earlier for value in one.values]
    deviation = max(stdev(values) if len(values) > 1 else 0.0, _LEAST_DEVIATION)
    error = deviation * math.sqrt(1 / len(values) + 1 / len(reading.values))
    if abs(mean - fmean(values)) > SIGMAS * error:
        yield (
            CanaryFault.DRIFTED,
            f"{mean:.3f}; {fmean(values):.3f} before, with a standard error of {error:.3f}",
        )
    models = {model for one in earlier for model in one.answered_by}
    if not set(reading.answered_by) <= models:
        yield CanaryFault.MODEL_CHANGED, f"{', '.join(reading.answered_by)}"
