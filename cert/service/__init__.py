"""The monitor as a service: HTTP API, health, metrics."""
