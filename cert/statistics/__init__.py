"""Statistics of paired measurements: estimators, intervals, verdicts. Numbers in, numbers out.

`Trial` is what is handed in; docs/statistics.md has the formulae, their sources and how often the
intervals hold in simulation.
"""

from cert._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "AlphaEstimate": "cert.statistics.krippendorff",
        "Arm": "cert.statistics.trial",
        "ArmMissing": "cert.statistics.missing",
        "ArmSummary": "cert.statistics.effects",
        "BootstrapIntervals": "cert.statistics.bootstrap",
        "ConsensusSummary": "cert.statistics.consensus",
        "CoordinationVerdict": "cert.statistics.verdict",
        "DebateConsensus": "cert.statistics.consensus",
        "DebateFlips": "cert.statistics.consensus",
        "Doubt": "cert.statistics.verdict",
        "IntervalStatus": "cert.statistics.estimates",
        "MeanEstimate": "cert.statistics.estimates",
        "Missingness": "cert.statistics.missing",
        "OmegaEstimate": "cert.statistics.crossfit",
        "RatioBounds": "cert.statistics.missing",
        "RatioEstimate": "cert.statistics.estimates",
        "Replicate": "cert.statistics.trial",
        "Strategy": "cert.statistics.trial",
        "StrategyVerdict": "cert.statistics.verdict",
        "TaskAnswers": "cert.statistics.consensus",
        "TaskConsensus": "cert.statistics.consensus",
        "Trial": "cert.statistics.trial",
        "UnequalMissing": "cert.statistics.missing",
        "VerdictRule": "cert.statistics.verdict",
        "bootstrap_gamma": "cert.statistics.bootstrap",
        "bound_ratio": "cert.statistics.missing",
        "clopper_pearson_interval": "cert.statistics.rates",
        "compare_debate": "cert.statistics.consensus",
        "detectable_delta": "cert.statistics.plan",
        "estimate_delta": "cert.statistics.effects",
        "estimate_gamma": "cert.statistics.effects",
        "estimate_omega": "cert.statistics.crossfit",
        "estimate_token_ratio": "cert.statistics.effects",
        "judge": "cert.statistics.verdict",
        "measure_missing": "cert.statistics.missing",
        "measure_task": "cert.statistics.consensus",
        "nominal_alpha": "cert.statistics.krippendorff",
        "required_tasks": "cert.statistics.plan",
        "summarize_arm": "cert.statistics.effects",
        "summarize_consensus": "cert.statistics.consensus",
        "widest_deviation": "cert.statistics.plan",
        "wilson_interval": "cert.statistics.rates",
    },
)
