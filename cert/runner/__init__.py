"""Where the parts meet: cases through an engine into records, and records into files."""

from cert._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ErrorBudget": "cert.runner.tally",
        "Outcome": "cert.runner.pipeline",
        "OutputError": "cert.runner.record_file",
        "RecordFile": "cert.runner.record_file",
        "RunSettings": "cert.runner.pipeline",
        "Tally": "cert.runner.tally",
        "open_engine": "cert.runner.local",
        "parse_error_budget": "cert.runner.tally",
        "run_cases": "cert.runner.pipeline",
    },
)
