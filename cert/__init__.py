"""cert: measure a language model token by token, judge it, and record the evidence."""

__version__ = "4.0.0a1"
