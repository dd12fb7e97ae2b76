"""The rules are valid, and every alert fires when it should and not before."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.deployments.ops_tools import DEPLOYMENTS, alerts, documents, passes, tool

PROMETHEUS = DEPLOYMENTS / "prometheus"
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def test_rules_and_configuration_are_valid() -> None:
    promtool = tool("promtool")
    passes(promtool, "check", "rules", *(PROMETHEUS / "rules").glob("*.yml"))
    passes(promtool, "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_of_the_rules_pass(path: object) -> None:
    assert "SUCCESS" in passes(tool("promtool"), "test", "rules", str(path))


def test_every_alert_is_seen_firing_and_seen_quiet() -> None:
    seen: dict[str, set[bool]] = defaultdict(set)
    for path in UNIT_TESTS:
        for case in documents(path)[0]["tests"]:
            for one in case["alert_rule_test"]:
                seen[one["alertname"]].add(bool(one["exp_alerts"]))
    assert seen == {rule["alert"]: {True, False} for rule in alerts()}


def test_every_alert_says_how_bad_it_is_and_what_to_read() -> None:
    rules = list(alerts())
    assert len(rules) >= 15
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        anchor = rule["annotations"]["runbook_url"].partition("#")[2]
        assert anchor == rule["alert"].lower()
