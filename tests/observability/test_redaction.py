from __future__ import annotations

import time

import pytest

from cert.observability.redaction import MASK, is_secret_name, redact, redact_values

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nq1w2e3==\n-----END RSA PRIVATE KEY-----"


# Assembled, so that scanners of this repository find no secret in it.
SECRETS = [
    "hf_" + "A1b2C3d4" * 4,
    "sk-" + "a1B2" * 12,
    "sk-ant-api03-" + "x_Y-" * 10,
    "sk-proj-" + "q1" * 20,
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ASIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a" * 36,
    "github_pat_" + "a1_" * 10,
    "glpat-" + "a" * 20,
    "xoxb-" + "1234567890-abc",
    "AIza" + "b" * 35,
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0x." + "c2lnbmF0dXJl",
    PEM,
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "frame", ["{}", "before {} after", 'key="{}"', "({})", "a:{},b", "x={}\n", "J{}"]
)
def test_secrets_of_known_shape_go_and_the_rest_stays(secret: str, frame: str) -> None:
    cleaned = redact(frame.format(secret))
    assert secret[:12] not in cleaned.replace("-----BEGIN ", "")
    assert MASK in cleaned
    before, after = frame.split("{}")
    assert cleaned.startswith(before.rstrip('"'))
    assert cleaned.endswith(after.lstrip('"'))
    assert redact(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("https://ann:pw@host/x?y=1", f"https://{MASK}@host/x?y=1"),
        ("postgres://u:p@ss@db:5432/d", f"postgres://{MASK}@db:5432/d"),
        ("https://token@github.com/a", f"https://{MASK}@github.com/a"),
        ("Authorization: Bearer abc.def-123456", f"Authorization: Bearer {MASK}"),
        ("authorization: basic QWxhZGRpbjpvcGVu", f"authorization: basic {MASK}"),
        ("api_key=abc&x=1", f"api_key={MASK}&x=1"),
        ('{"password": "hunter 2", "a": 1}', f'{{"password": {MASK}, "a": 1}}'),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7", f"AWS_SECRET_ACCESS_KEY={MASK}"),
        ("client-secret = 'x y'", f"client-secret = {MASK}"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", MASK),
    ],
)
def test_secrets_by_their_place(text: str, cleaned: str) -> None:
    assert redact(text) == cleaned
    assert redact(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://host/path?q=a@b",
        "see https://example.org and mail ann@example.org",
        "hf_short sk-learn task-specific-information-extraction",
        "the bearer of news",
        "the secret: nobody knows",
        "max_new_tokens=64 token_ids=[1, 2]",
        "AKIA is a prefix",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "日本語 \ud800",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("api_key", True),
        ("ANTHROPIC_API_KEY", True),
        ("aws_secret_access_key", True),
        ("password", True),
        ("Authorization", True),
        ("set-cookie", True),
        ("hf_access_token", True),
        ("token_ids", False),
        ("max_new_tokens", False),
        ("tokens", False),
        ("secretary", False),
        ("key", False),
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_values_are_redacted_wherever_they_stand() -> None:
    secret = SECRETS[0]
    assert redact_values({"a": [secret, 1, None], "api_key": 5, "password": None, "b": {}}) == {
        "a": [MASK, 1, None],
        "api_key": MASK,
        "password": None,
        "b": {},
    }


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "sk-",
        "://",
        "://a@",
        "eyJaaaaaaaa.",
        "-----BEGIN PRIVATE KEY-----",
        "api_key",
        "Bearer ",
        "secret=",
        "password : ",
        "hf_",
        "https://a:",
        "x'\"",
    ],
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 5
