"""What is measured of each token and of a text: definitions in numpy, no model stack.

`row_signals` defines the signals of one row of logits, `SignalTrace` holds them for a text,
`summarize` pools them.
"""

from cert._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "SignalSummary": "cert.signals.summary",
        "SignalTrace": "cert.signals.trace",
        "TokenSignals": "cert.signals.rows",
        "build_trace": "cert.signals.trace",
        "row_signals": "cert.signals.rows",
        "summarize": "cert.signals.summary",
    },
)
