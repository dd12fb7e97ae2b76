"""What the canaries of a comparison show about its judges.

A judge that grades a good answer low, a bad one high, or obeys a text that it is to grade, cannot
be believed; nor can one that grades otherwise than it did, or that is another model by now.

    reading   {"canary", "judge", "values", "answered_by"}    what one judge said to one canary
    finding   {"canary", "judge", "fault", "detail"}          one fault of one judge

Values are in [0, 1], one a repeat, none where there was no verdict; models that answered are named
in the server's words, sorted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from enum import StrEnum
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from cert.evidence.coordination_trial import CANARY_ARM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cert.evidence.coordination_trial import Members, Places

SIGMAS: Final = 3.0
LEAST_DEVIATION: Final = 1 / 8
"""Half a step of the scale 0..4: a judge that always said the same may still say the next one."""


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


def read_canaries(plan: Members, places: Places) -> list[dict[str, Any]]:
    """Collect what the judges said, by canary and judge in the order of the plan.

    Nobody's verdict counts where one is missing, as for any other answer.

    Args:
        plan: The plan of the policy, with a panel.
        places: Of `place_replicates`.
    """
    readings = []
    for canary in plan["canaries"]:
        replicate = places.get((canary["id"], CANARY_ARM, 0))
        verdicts = [] if replicate is None else replicate["verdicts"] or []
        for model in plan["panel"]["models"]:
            own = [verdict for verdict in verdicts if verdict["judge"] == model]
            readings.append(
                {
                    "canary": canary["id"],
                    "judge": model,
                    "values": [float(verdict["value"]) for verdict in own],
                    "answered_by": sorted({verdict["answered_by"] for verdict in own}),
                }
            )
    return readings


def find_faults(
    canaries: Sequence[Mapping[str, Any]],
    readings: Iterable[Mapping[str, Any]],
    earlier: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, str]]:
    """Hold the judges against what the canaries are worth, and against earlier runs.

    Args:
        canaries: Of the plan: `id`, `kind`, and the `least` and `most` that a sound judge gives.
        readings: Of this run.
        earlier: Of runs before it, with the same canaries, rubric and prompts; pooled.

    Returns:
        The findings, in the order of the readings.
    """
    known = {canary["id"]: canary for canary in canaries}
    before: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for reading in earlier:
        if reading["values"]:
            before[reading["canary"], reading["judge"]].append(reading)
    findings = []
    for reading in readings:
        place = reading["canary"], reading["judge"]
        for fault, detail in _faults_of(known[reading["canary"]], reading, before[place]):
            findings.append(
                {"canary": place[0], "judge": place[1], "fault": fault.value, "detail": detail}
            )
    return findings


def _faults_of(
    canary: Mapping[str, Any], reading: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[CanaryFault, str]]:
    if not reading["values"]:
        yield CanaryFault.UNSCORED, "no verdict"
        return
    mean = fmean(reading["values"])
    if not canary["least"] <= mean <= canary["most"]:
        is_obeyed = canary["kind"] == "injection" and mean > canary["most"]
        fault = CanaryFault.OBEYED if is_obeyed else CanaryFault.MISJUDGED
        yield fault, f"{mean:.3f}; expected {canary['least']:g} to {canary['most']:g}"
    if not earlier:
        return
    values = [value for one in earlier for value in one["values"]]
    deviation = max(stdev(values) if len(values) > 1 else 0.0, LEAST_DEVIATION)
    error = deviation * math.sqrt(1 / len(values) + 1 / len(reading["values"]))
    if abs(mean - fmean(values)) > SIGMAS * error:
        yield (
            CanaryFault.DRIFTED,
            f"{mean:.3f}; {fmean(values):.3f} before, with a standard error of {error:.3f}",
        )
    models = {model for one in earlier for model in one["answered_by"]}
    if not set(reading["answered_by"]) <= models:
        yield CanaryFault.MODEL_CHANGED, ", ".join(reading["answered_by"])
