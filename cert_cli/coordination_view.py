"""The human view of a comparison: arms, strategies, and what may be concluded and what not.

It is drawn from the result alone, so it never shows more than the record does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from cert.observability.controls import escape_controls
from cert.statistics.verdict import CoordinationVerdict, Doubt
from cert_cli.drawing import draw_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from cert_cli.terminal import Style

    Part = Mapping[str, Any]

_PERCENT: Final = 100.0
_COLORS: Final = {
    CoordinationVerdict.BENEFICIAL: "bold green",
    CoordinationVerdict.HARMFUL: "bold red",
    CoordinationVerdict.INCONCLUSIVE: "bold yellow",
    CoordinationVerdict.UNDEFINED: "bold yellow",
}
_DOUBTS: Final = {
    Doubt.GAMMA_UNDEFINED: "the model alone scores so low that no ratio to it can be told",
    Doubt.BUDGET_UNDEFINED: "the arm with the same tokens scores so low that no ratio can be told",
    Doubt.NO_BUDGET_ARM: "it was not held against the same tokens spent on one model (--matched)",
    Doubt.NO_DATA: "no task has a score in all arms",
    Doubt.TOO_FEW_GROUPS: "fewer than two groups of tasks have scores in all arms",
    Doubt.TOO_FEW_TASKS: "fewer tasks have scores in all arms than the rule asks for (--min-tasks)",
    Doubt.NO_VARIATION: "a ratio is the same on every task: nothing to tell its error from",
    Doubt.MISSING_SCORES: "too many scores are missing, or more in one arm than in another",
    Doubt.NOT_BETTER: "not shown to be better than the model alone",
    Doubt.NOT_AS_GOOD_FOR_THE_BUDGET: (
        "not shown to be as good as the model alone given the same tokens"
    ),
    Doubt.NOT_AFTER_ADJUSTMENT: "shown on its own, but not among so many strategies",
    Doubt.WORSE: "shown to be worse than the model alone",
    Doubt.WORSE_FOR_THE_BUDGET: "shown to be worse than the model alone given the same tokens",
    Doubt.JUDGE_MISTRUSTED: "the judges failed on answers of known worth",
}
_UNSCORED: Final = {
    "max_tokens": "replies were cut off (--max-tokens)",
    "call_failed": "replicates had a call that failed",
    "refusal": "replies were refusals",
    "judge_failed": "had a judge's call that failed",
    "judge_invalid": "had a judge without a valid verdict",
    "reference_unscored": "stand for a replicate that is missing",
    "not_run": "were not run",
}


def render_result(result: Part, style: Style) -> str:
    """Draw the result of a comparison.

    Args:
        result: As `cert.evidence.coordination_result.build_result` builds it.
        style: How to draw.
    """
    parts: list[RenderableType] = [_arms(result["arms"], style), *_missing(result["arms"]), Text()]
    for strategy in result["strategies"]:
        parts += [*_strategy(strategy, style), Text()]
    parts += [_line("spent", describe_spend(result["spend"])), *_judges(result["judges"])]
    parts += [_line("so", conclude(one)) for one in result["strategies"]]
    return draw_parts(parts, style)


def conclude(strategy: Part) -> str:
    """Say in a sentence what may be concluded of a strategy, and what not.

    Args:
        strategy: One of the result's.
    """
    name = strategy["name"]
    gamma, budget = _times(strategy["gamma"]), _times(strategy["gamma_budget"])
    match CoordinationVerdict(strategy["verdict"]):
        case CoordinationVerdict.BENEFICIAL:
            return (
                f"{name} did better than the model alone ({gamma} its score) and held its "
                f"own against the same tokens spent on one model ({budget} its score); that is "
                "about tasks like these and these models, and about no others."
            )
        case CoordinationVerdict.HARMFUL:
            doubts = {Doubt(doubt) for doubt in strategy["doubts"]}
            than = (
                f"than the model alone ({gamma} its score)"
                if Doubt.WORSE in doubts
                else f"than the same tokens spent on one model ({budget} its score)"
            )
            return (
                f"{name} did worse {than}: on tasks like these and with these models it does harm; "
                "that is about no others."
            )
        case CoordinationVerdict.UNDEFINED:
            return (
                f"nothing can be concluded of {name}, neither that it helps nor that it does harm: "
                "what it is held against scores next to nothing, so that no ratio can be told."
            )
    return (
        f"nothing can be concluded of {name}, neither that it helps nor that it does harm; that "
        "nothing was found does not show that there is nothing."
    )


def describe_spend(spend: Part) -> str:
    """Put what was spent into words."""
    tokens = spend["input_tokens"] + spend["cache_read_tokens"] + spend["cache_write_tokens"]
    words = [f"{_count(spend['calls'])} calls"]
    words += [
        f"{_count(spend[name])} {what}"
        for name, what in (
            ("judge_calls", "of them of judges"),
            ("failed_calls", "failed"),
            ("reused_calls", "reused from earlier runs"),
            ("unknown_billed_calls", "perhaps charged for without saying so"),
        )
        if spend[name]
    ]
    words.append(f"{_count(tokens)} tokens in, {_count(spend['output_tokens'])} out")
    words.append("no prices given" if spend["cost_usd"] is None else f"{spend['cost_usd']:.4g} USD")
    return ", ".join(words)


def _arms(arms: Sequence[Part], style: Style) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    has_costs = any(arm["cost_per_task_usd"] is not None for arm in arms)
    names = ["score", "tokens/task", *(["USD/task"] if has_costs else []), "per 1k tokens"]
    table.add_column("arm", overflow="fold", no_wrap=style.width >= _WIDE)
    for name in (*names, "missing"):
        table.add_column(name, justify="right", no_wrap=style.width >= _WIDE)
    for arm in arms:
        table.add_row(
            escape_controls(arm["name"]),
            _interval(arm["score"]),
            _number(arm["tokens_per_task"], ".0f"),
            *([_number(arm["cost_per_task_usd"], ".3g")] if has_costs else []),
            _interval(arm["quality_per_1k_tokens"]),
            f"{arm['missing'] * _PERCENT:.1f} %",
        )
    return table


def _missing(arms: Sequence[Part]) -> list[Text]:
    """Why scores are missing, where some are."""
    reasons: dict[str, int] = {}
    for arm in arms:
        for reason, count in arm["unscored"].items():
            short = _UNSCORED.get(reason.split(":")[0], reason)
            reasons[short] = reasons.get(short, 0) + count
    words = [f"{count:,} {reason}" for reason, count in reasons.items()]
    return [_line("missing", ", ".join(words))] if words else []


def _strategy(strategy: Part, style: Style) -> list[RenderableType]:
    verdict = CoordinationVerdict(strategy["verdict"])
    heading = Text.assemble(
        (verdict.value.upper(), _COLORS[verdict]), f"  {escape_controls(strategy['name'])}"
    )
    for doubt in strategy["doubts"]:
        heading.append(f"\n  - {_DOUBTS[Doubt(doubt)]}")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right", no_wrap=style.width >= _WIDE)
    table.add_column("words", overflow="fold")
    for what, value, words in _figures(strategy):
        table.add_row(what, value, words)
    return [heading, table]


def _figures(strategy: Part) -> list[tuple[str, str, str]]:
    """Name, value, and what it is, of everything that was measured of a strategy."""
    rows = [
        ("gamma", _interval(strategy["gamma"]), "its score over the model's alone"),
        (
            "gamma_budget",
            _interval(strategy["gamma_budget"]),
            "its score over that of the same tokens spent on one model",
        ),
        ("delta", _interval(strategy["delta"]), "its score minus the model's alone"),
    ]
    if strategy["gamma_refine"] is not None:
        words = "its score over that of one agent that refines its own answer"
        rows.append(("gamma_refine", _interval(strategy["gamma_refine"]), words))
    if strategy["gamma_placebo"] is not None:
        words = "its score over that of peers who talk of other tasks"
        rows.append(("gamma_placebo", _interval(strategy["gamma_placebo"]), words))
    rows.append(("tokens", _interval(strategy["token_ratio"]), "times those of the model alone"))
    omega = strategy["omega"]
    if omega is not None:
        words = "what it adds to its best individual, chosen on other tasks"
        rows.append(("omega", _interval(omega["omega"]), words))
        words = "the same with the best individual of hindsight; below 0 by chance alone"
        rows.append(("oracle_gap", _number(omega["oracle_gap"], ".3f"), words))
    return [*rows, *_consensus(strategy["consensus"])]


def _consensus(consensus: Part) -> list[tuple[str, str, str]]:
    if consensus["status"] != "measured":
        return [("consensus", "not measured", "no answers that can be held against each other")]
    before, after, flips = consensus["before"], consensus["after"], consensus["flips"]
    shares = f"{_number(before['agreement'], '.2f')}, {_number(after['agreement'], '.2f')}"
    wrong = before["unanimous_wrong"], after["unanimous_wrong"]
    rows = [
        ("agreement", shares, "share of pairs that agree, before and after they saw each other"),
        ("all wrong", f"{wrong[0]}, {wrong[1]}", "unanimous and wrong, before and after"),
        (
            "flips",
            f"{flips['wrong_to_right']}, {flips['right_to_wrong']}",
            "answers from wrong to right, from right to wrong",
        ),
    ]
    if consensus["alpha"] is not None:
        alpha = _number(consensus["alpha"]["alpha"], ".3f")
        rows.append(("alpha", alpha, "Krippendorff's, of the first answers: agreement over chance"))
    return rows


def _judges(judges: Part | None) -> list[Text]:
    if judges is None:
        return []
    faults = [
        f"{escape_controls(one['judge'])} on {escape_controls(one['canary'])}: {one['fault']} "
        f"({escape_controls(one['detail'])})"
        for one in judges["findings"]
    ]
    return [_line("judges", "; ".join(faults) or "right about every answer of known worth")]


def _line(head: str, words: str) -> Text:
    return Text.assemble((f"{head:<8}", "bold"), escape_controls(words))


def _times(ratio: Part | None) -> str:
    """A ratio within a sentence."""
    if ratio is None or ratio["estimate"] is None:
        return "unknown times"
    if ratio["lower"] is None or ratio["upper"] is None:
        return f"{ratio['estimate']:.3f} times"
    share = ratio["confidence"] * _PERCENT
    return (
        f"{ratio['estimate']:.3f} times, {share:g} % between {ratio['lower']:.3f} and "
        f"{ratio['upper']:.3f},"
    )


def _interval(estimate: Part | None) -> str:
    """An estimate and its interval, or why there is none."""
    if estimate is None:
        return "not run"
    if estimate["estimate"] is None:
        return _words(estimate["status"])
    value = f"{estimate['estimate']:.3f}"
    if estimate["lower"] is None or estimate["upper"] is None:
        return f"{value} ({_words(estimate['status'])})"
    return f"{value} [{estimate['lower']:.3f}, {estimate['upper']:.3f}]"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _count(value: int) -> str:
    return f"{value:,}"


_WIDE: Final = 100
