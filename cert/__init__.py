"""cert: measure a language model token by token, judge it, and record the evidence."""

