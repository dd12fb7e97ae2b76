"""Policies: what is read, what is refused and how, digests, and where policies are found."""

from __future__ import annotations

import hashlib
import json
import math
from importlib import resources
from pathlib import Path

import pytest

from cert.assessment.policy import (
    OPERATORS,
    SIGNALS,
    Policy,
    Threshold,
    builtin_policy_ids,
    load_policy,
    parse_policy,
)
from cert.core.errors import ConfigurationError, PolicyError
from cert.signals.summary import SignalSummary

GOOD = """\
id: mine
version: 3
min_tokens: 8
incomplete: judge
checks:
  - {signal: perplexity, op: "<", threshold: 50}
  - {signal: min_logit_margin, op: ">=", threshold: 0.5}
"""
MINE = Policy(
    id="mine",
    version=3,
    checks=(Threshold("perplexity", "<", 50.0), Threshold("min_logit_margin", ">=", 0.5)),
    min_tokens=8,
    incomplete="judge",
)
CHECK = 'checks: [{signal: perplexity, op: "<", threshold: 50}]'


def parse(text: str) -> Policy:
    return parse_policy(text.encode(), source="p.yaml")


def test_a_policy_is_read_as_written() -> None:
    assert parse(GOOD) == MINE
    assert type(parse(GOOD).checks[0].threshold) is float


def test_defaults() -> None:
    policy = parse(f"id: a\nversion: 1\n{CHECK}")
    assert (policy.min_tokens, policy.incomplete) == (1, "inconclusive")


def test_json_is_yaml() -> None:
    assert (
        parse(
            json.dumps(
                {
                    "id": "mine",
                    "version": 3,
                    "checks": [{"signal": "perplexity", "op": "<", "threshold": 50}],
                }
            )
        ).id
        == "mine"
    )


def test_every_field_of_a_summary_is_a_signal() -> None:
    assert set(SIGNALS) == set(SignalSummary.__slots__)
    for signal in SIGNALS:
        for op in OPERATORS:
            Threshold(signal, op, 1.0)


def test_the_digest_is_over_the_canonical_bytes_of_every_field() -> None:
    written = (
        '{"checks":[{"op":"<","signal":"perplexity","threshold":50},'
        '{"op":">=","signal":"min_logit_margin","threshold":0.5}],'
        '"id":"mine","incomplete":"judge","min_tokens":8,"version":3}'
    )
    assert MINE.digest == "sha256:" + hashlib.sha256(written.encode()).hexdigest()


def test_the_digest_knows_what_the_policy_says_and_not_how_it_is_spelt() -> None:
    respelt = """\
# a comment
checks:
- threshold: 5.0e+1
  op: '<'
  signal: perplexity
- {op: ">=", threshold: 0.50, signal: min_logit_margin}
version: 3
incomplete: "judge"
min_tokens: 8
id: mine
"""
    assert parse(respelt).digest == MINE.digest
    changes = [
        ("mine", "yours"),
        ("version: 3", "version: 4"),
        ("tokens: 8", "tokens: 9"),
        ("judge", "inconclusive"),
        ("50", "50.000001"),
        ("perplexity", "mean_nll"),
        ("<", "<="),
    ]
    digests = {parse(GOOD.replace(*change)).digest for change in changes}
    assert len(digests | {MINE.digest}) == len(changes) + 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expected `object`, got `null`"),
        ("3", "Expected `object`, got `int`"),
        ("[]", "Expected `object`, got `array`"),
        (f"version: 1\n{CHECK}", "missing required field `id`"),
        (f"id: a\n{CHECK}", "missing required field `version`"),
        ("id: a\nversion: 1", "missing required field `checks`"),
        ("id: a\nversion: 1\nchecks: []", "0 checks; expected 1 to 100"),
        ("id: a\nversion: 1\nchecks: 3", "Expected `array`, got `int`"),
        ("id: a\nversion: 1\nchecks: [3]", r"Expected `object`, got `int` - at `\$.checks\[0\]`"),
        (f"id: a\nversion: 1\nchek: 1\n{CHECK}", "unknown key 'chek'; did you mean 'checks'"),
        (f"id: a\nversion: 1\nzzz: 1\n{CHECK}", "unknown key 'zzz'$"),
        (GOOD.replace("threshold: 0.5", "treshold: 0.5"),
         "p.yaml: check 2: unknown key 'treshold'; did you mean 'threshold'"),
        (f"id: a\nid: b\nversion: 1\n{CHECK}", "p.yaml line 2: .*twice"),
        (GOOD.replace("perplexity", "perplexty"),
         r"no signal 'perplexty'; did you mean 'perplexity'\?.*checks\[0\]"),
        (GOOD.replace('">="', '"=="'), r"op is '=='; expected one of < <= > >=.*checks\[1\]"),
        (GOOD.replace("0.5", ".nan"), "not a finite number"),
        (GOOD.replace("0.5", ".inf"), "not a finite number"),
        (GOOD.replace("0.5", "1e999"), "not a finite number"),
        (GOOD.replace("0.5", "1" + "0" * 400), "out of range"),
        (GOOD.replace("0.5", "'0.5'"), "Expected `float`, got `str`"),
        (GOOD.replace("0.5", "true"), "Expected `float`, got `bool`"),
        (GOOD.replace("0.5", "no"), "Expected `float`, got `str`"),
        (GOOD.replace("0.5", "2026-01-01"), "Expected `float`, got `str`"),
        (GOOD.replace("0.5", "null"), "Expected `float`, got `null`"),
        (GOOD.replace("version: 3", "version: 0"), "version is 0; expected 1 or more"),
        (GOOD.replace("version: 3", "version: 1.5"), "Expected `int`, got `float`"),
        (GOOD.replace("version: 3", "version: true"), "Expected `int`, got `bool`"),
        (GOOD.replace("version: 3", "version: 9007199254740992"), "version is 9007199254740992"),
        (GOOD.replace("tokens: 8", "tokens: 0"), "min_tokens is 0"),
        (GOOD.replace("tokens: 8", "tokens: -1"), "min_tokens is -1"),
        (GOOD.replace("judge", "maybe"), "Invalid enum value 'maybe'"),
        (GOOD.replace("id: mine", "id: ''"), "id is ''"),
        (GOOD.replace("id: mine", "id: a/b"), "id is 'a/b'"),
        (GOOD.replace("id: mine", 'id: "a\\n"'), r"id is 'a\\n'"),
        (GOOD.replace("id: mine", f"id: {'a' * 65}"), "id is 'aaa"),
        (GOOD.replace("id: mine", "id: 3"), "Expected `str`, got `int`"),
        (GOOD.replace("min_logit_margin", "perplexity").replace('">="', '"<"'),
         "same signal and op stand in two checks"),
        ("id: !!python/object/apply:os.system [ls]", "tags are not allowed"),
        ("a: &a [1]\nb: [" + "*a, " * 40 + "]", "aliases"),
        ("[" * 5000, "nested deeper"),
        ("id: a: b", "p.yaml line 1"),
        ("--- 1\n--- 2\n", "p.yaml"),
        ("id: \x00", "p.yaml"),
        ("id: " + "a" * 65536, "a policy has 65536 at most"),
        ("id: a\nversion: 1\nchecks:\n"
         + "".join(f'- {{signal: nll, op: "<", threshold: {one}}}\n' for one in range(101)),
         "101 checks"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_and_said(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        parse(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(PolicyError, match=r"p\.yaml: not UTF-8"):
        parse_policy(b"\xff\xfe", source="p.yaml")


def test_the_hint_lists_the_keys() -> None:
    with pytest.raises(PolicyError) as caught:
        parse("ids: a")
    assert caught.value.hint == "keys: id, version, checks, min_tokens, incomplete"
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_a_policy_made_in_code_is_held_to_the_same_rules(threshold: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Threshold("perplexity", "<", threshold)
    with pytest.raises(ValueError, match="no signal"):
        Threshold("cleverness", ">", 1.0)
    with pytest.raises(ValueError, match="incomplete is 'x'"):
        Policy("a", 1, (Threshold("nll", "<", 1.0),), incomplete="x")  # type: ignore[arg-type]


def test_the_builtin_policies() -> None:
    assert builtin_policy_ids() == ("default", "reference", "strict")
    for name in builtin_policy_ids():
        assert load_policy(name).id == name


def test_the_default_policy_has_the_thresholds_of_the_specification() -> None:
    assert load_policy("default").checks == (
        Threshold("perplexity", "<", 50.0),
        Threshold("max_entropy", "<", 2.5),
        Threshold("cumulative_surprise", "<", 10.0),
    )


def test_strict_is_nowhere_looser_than_default() -> None:
    strict = {(check.signal, check.op): check.threshold for check in load_policy("strict").checks}
    for check in load_policy("default").checks:
        assert strict[check.signal, check.op] < check.threshold


def test_a_policy_file_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "default").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_policy("./default") == load_policy(str(tmp_path / "default")) == MINE
    assert load_policy("default").id == "default"


def test_policies_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no policy 'defualt'; did you mean 'default'") as caught:
        load_policy("defualt")
    assert caught.value.hint == (
        "built in: default, reference, strict; or give the path of a YAML file"
    )
    with pytest.raises(PolicyError, match="cannot be read: Is a directory"):
        load_policy(str(tmp_path))
    with pytest.raises(PolicyError, match="cannot be read: embedded null byte"):
        load_policy("a\0b")
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * 1_000_000)
    with pytest.raises(PolicyError, match="65536 at most"):
        load_policy(str(big))


def test_an_installed_package_carries_its_policies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cert" / "_configs" / "policies"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(GOOD)
    (folder / "README").write_text("no policy")
    monkeypatch.setattr(resources, "files", lambda _name: tmp_path / "cert")
    assert builtin_policy_ids() == ("mine",)
    assert load_policy("mine") == MINE


def test_the_policy_in_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
    snippet = text.split("```yaml\n")[1].split("```")[0]
    policy = parse(snippet)
    assert (policy.id, policy.version, policy.min_tokens) == ("support-answers", 2, 8)
    for signal in SIGNALS:
        assert f"`{signal}`" in text
