"""Schemas of what a comparison of arms found."""

from __future__ import annotations

from typing import Final

from cert.evidence.coordination_records import OUTCOMES
from cert.evidence.schema_coordination import ARM_KINDS, CONTENT, LEVEL, SHARE, USAGE, USD
from cert.evidence.schema_parts import (
    COUNT,
    DIGEST,
    NAME,
    POSITIVE,
    TEXT,
    Schema,
    array,
    closed,
    or_null,
    ref,
    run_record,
)

INTERVALS: Final = (
    "bounded",
    "unbounded",
    "no_denominator",
    "no_variation",
    "too_few",
    "no_data",
)
CANARY_FAULTS: Final = ("unscored", "misjudged", "obeyed", "drifted", "model_changed")

_NUMBER: Final[Schema] = {"type": "number"}
_FLAG: Final[Schema] = {"type": "boolean"}
_INTEGER: Final[Schema] = {"type": "integer"}


def definitions() -> Schema:
    """The definitions, by name."""
    return {
        "coordination": run_record(
            "coordination", {"content": CONTENT, "coordination": _coordination()}
        ),
        "strategy": _strategy(),
        "ratio_estimate": _ratio_estimate(),
        "mean_estimate": _mean_estimate(),
        "missingness": _missingness(),
        "consensus_summary": _consensus_summary(),
        "canary_reading": closed(
            {
                "canary": NAME,
                "judge": NAME,
                "values": array(SHARE),
                "answered_by": array(TEXT),
            }
        ),
    }


def _coordination() -> Schema:
    finding = {"canary": NAME, "judge": NAME, "fault": {"enum": list(CANARY_FAULTS)}}
    judges = {
        "earlier": array(ref("canary_reading")),
        "readings": array(ref("canary_reading")),
        "findings": array(closed(finding | {"detail": TEXT})),
    }
    arm = {
        "name": NAME,
        "kind": {"enum": list(ARM_KINDS)},
        "score": ref("mean_estimate"),
        "tokens_per_task": or_null(USD),
        "cost_per_task_usd": or_null(USD),
        "quality_per_1k_tokens": ref("ratio_estimate"),
        "missing": SHARE,
        "unscored": {"type": "object", "additionalProperties": POSITIVE},
    }
    calls = ("calls", "judge_calls", "reused_calls", "failed_calls", "unknown_billed_calls")
    return closed(
        {
            "policy": closed({"id": ref("policy_id"), "version": POSITIVE, "digest": DIGEST}),
            "replicates": closed({"planned": COUNT, "run": COUNT, "scored": COUNT}),
            "arms": array(closed(arm)),
            "strategies": array(ref("strategy")),
            "judges": or_null(closed(judges)),
            "spend": closed({**dict.fromkeys((*calls, *USAGE), COUNT), "cost_usd": or_null(USD)}),
        }
    )


def _strategy() -> Schema:
    ratio = ref("ratio_estimate")
    return closed(
        {
            "name": NAME,
            "verdict": {"enum": list(OUTCOMES)},
            "doubts": array(NAME),
            "gamma": ratio,
            "gamma_budget": or_null(ratio),
            "gamma_refine": or_null(ratio),
            "gamma_placebo": or_null(ratio),
            "delta": ref("mean_estimate"),
            "token_ratio": ratio,
            "p_beneficial": SHARE,
            "p_worse": SHARE,
            "p_worse_for_the_budget": or_null(SHARE),
            "p_with_failure": or_null(SHARE),
            "missing": ref("missingness"),
            "bounds": closed({"gamma": _bounds(), "gamma_budget": or_null(_bounds())}),
            "bootstrap": or_null(_bootstrap()),
            "omega": or_null(_omega()),
            "consensus": _consensus(),
        }
    )


def _bounds() -> Schema:
    return closed({"lowest": or_null(_NUMBER), "highest": or_null(_NUMBER)})


def _estimate() -> Schema:
    return {
        "estimate": or_null(_NUMBER),
        "lower": or_null(_NUMBER),
        "upper": or_null(_NUMBER),
        "status": {"enum": list(INTERVALS)},
        "confidence": LEVEL,
        "tasks": COUNT,
        "groups": COUNT,
        "degrees": or_null(_NUMBER),
    }


def _ratio_estimate() -> Schema:
    parts = {"top": or_null(_NUMBER), "bottom": or_null(_NUMBER), "scale": _NUMBER}
    return closed(_estimate() | parts)


def _mean_estimate() -> Schema:
    spread = {"standard_error": or_null(USD), "standard_deviation": or_null(USD)}
    return closed(_estimate() | spread)


def _missingness() -> Schema:
    arm = {
        "arm": NAME,
        "replicates": COUNT,
        "unscored": COUNT,
        "share": SHARE,
        "reasons": {"type": "object", "additionalProperties": POSITIVE},
        "lowest_mean": SHARE,
        "highest_mean": SHARE,
    }
    pair = {"arms": array(NAME), "more_in_first": COUNT, "more_in_second": COUNT, "p": SHARE}
    return closed(
        {
            "arms": array(closed(arm)),
            "pairs": array(closed(pair)),
            "max_share": SHARE,
            "alpha": LEVEL,
            "is_acceptable": _FLAG,
        }
    )


def _bootstrap() -> Schema:
    interval = or_null(array(_NUMBER) | {"minItems": 2, "maxItems": 2})
    return closed(
        {
            "percentile": interval,
            "bca": interval,
            "resamples": COUNT,
            "undefined": COUNT,
            "groups": COUNT,
            "confidence": LEVEL,
            "seed": _INTEGER,
        }
    )


def _omega() -> Schema:
    return closed(
        {
            "omega": ref("mean_estimate"),
            "oracle_gap": or_null(_NUMBER),
            "individuals": COUNT,
            "splits": COUNT,
            "seed": _INTEGER,
        }
    )


def _consensus() -> Schema:
    flips = (
        "right_to_wrong",
        "wrong_to_right",
        "stayed_right",
        "stayed_wrong",
        "unjudged",
        "changed",
        "compared",
    )
    alpha = {"alpha": or_null(_NUMBER), "units": COUNT, "values": COUNT, "labels": COUNT}
    return closed(
        {
            "status": {"enum": ["measured", "not_measured"]},
            "before": or_null(ref("consensus_summary")),
            "after": or_null(ref("consensus_summary")),
            "flips": or_null(closed(dict.fromkeys(flips, COUNT))),
            "alpha": or_null(closed(alpha)),
        }
    )


def _consensus_summary() -> Schema:
    counts = (
        "tasks",
        "unanimous_right",
        "unanimous_wrong",
        "split_right",
        "split_wrong",
        "tied",
        "unjudged",
        "too_few",
    )
    means = ("agreement", "plurality_share", "agreement_where_right", "agreement_where_wrong")
    return closed(
        {
            **dict.fromkeys(counts, COUNT),
            **dict.fromkeys(means, or_null(SHARE)),
            "entropy_nats": or_null(USD),
        }
    )
