"""Plans as policies: what they are read from, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import rfc8785

from cert.assessment.policy import load_policy
from cert.evidence.coordination_plan import MAX_PLANNED, PlanPolicy, read_plan_policy
from cert.evidence.policy_record import build_policy_record, read_registered
from cert.evidence.record import encode_record
from tests.evidence.compared import compared
from tests.evidence.coordination_members import planned_arm, policy
from tests.ledger.ledgers import sha

if TYPE_CHECKING:
    from collections.abc import Callable

MEMBERS = policy(planned_arm("debate", agents=2), tasks=3)
PARTS = ("plan", "rule", "prices", "endpoints")


def plan_of(members: dict[str, Any] = MEMBERS) -> PlanPolicy:
    return PlanPolicy(**{name: members[name] for name in PARTS})


def test_a_digest_is_of_the_canonical_bytes_of_everything_else() -> None:
    registered = compared()[0]["policy"]
    members = {name: value for name, value in registered.items() if name != "digest"}
    assert registered["digest"] == "sha256:" + sha(rfc8785.dumps(members)).hex()


def test_what_is_registered_is_read_again() -> None:
    record = build_policy_record(plan_of())
    registered = json.loads(encode_record(record))["policy"]
    assert registered == MEMBERS | {"digest": plan_of().digest}
    again = read_registered(registered)
    assert (again.id, again.version, again.digest) == ("coordination", 1, plan_of().digest)
    assert isinstance(again, PlanPolicy)
    assert again.members == MEMBERS


def test_thresholds_are_told_from_plans() -> None:
    default = load_policy("default")
    record: dict[str, Any] = build_policy_record(default)
    assert read_registered(record["policy"]) == default
    with pytest.raises(ValueError, match="expected endpoints, id, plan"):
        read_plan_policy(record["policy"])


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "a member less": (lambda one: {k: v for k, v in one.items() if k != "rule"}, "expected"),
    "a member more": (lambda one: one | {"checks": []}, "expected"),
    "another id": (lambda one: one | {"id": "../../etc"}, "the id coordination"),
    "another version": (lambda one: one | {"version": 2}, "the version 1"),
    "no plan": (lambda one: one | {"plan": None}, "its plan is none: TypeError"),
    "no arms": (lambda one: one | {"plan": {"tasks": []}}, "its plan is none: KeyError"),
    "replicates that are none": (
        lambda one: one | {"plan": {"tasks": [], "arms": [{"replicates": "3"}]}},
        "its plan is none: TypeError",
    ),
    "what has no canonical form": (
        lambda one: one | {"rule": {"margin": float("nan")}},
        "its plan is none: CanonicalError",
    ),
    "another plan": (
        lambda one: one | {"plan": one["plan"] | {"seed": 2}},
        "its digest is sha256:",
    ),
    "no digest": (
        lambda one: {k: v for k, v in one.items() if k != "digest"},
        "its digest is sha256:[0-9a-f]{64}, not None",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_plan_is_refused(name: str) -> None:
    change, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        read_plan_policy(change(MEMBERS | {"digest": plan_of().digest}))


def test_a_plan_that_nobody_could_lay_out_is_refused() -> None:
    arms = [planned_arm(f"a{number}", "debate", replicates=1000) for number in range(1000)]
    plan = MEMBERS["plan"] | {"arms": arms}
    most = plan | {"tasks": MEMBERS["plan"]["tasks"][:1]}
    assert plan_of(MEMBERS | {"plan": most}).members["plan"] == most
    with pytest.raises(ValueError, match=f"3000000 replicates are planned; expected {MAX_PLANNED}"):
        plan_of(MEMBERS | {"plan": plan})
