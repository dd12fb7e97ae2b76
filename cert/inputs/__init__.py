"""Prompts as they come in: text, JSONL, CSV, Parquet, stdin."""

from cert._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "PromptCase": "cert.inputs.case",
        "ReadOptions": "cert.inputs.options",
        "RefusedInput": "cert.inputs.case",
        "case_from_argument": "cert.inputs.reader",
        "read_cases": "cert.inputs.reader",
    },
)
