"""Statistics of paired measurements: estimators, intervals, verdicts. Numbers in, numbers out."""
