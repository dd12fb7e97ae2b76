"""Metrics of what is in ledgers already, for runs whose process is gone."""
