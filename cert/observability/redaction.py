"""Secrets taken out of text before it leaves the program.

What is recognised by its shape: Hugging Face, OpenAI and Anthropic, AWS, GitHub, GitLab, Slack and
Google tokens, JSON web tokens, bearer and basic credentials, passwords in URLs, PEM private keys;
and whatever is assigned to a name such as `api_key`. A secret of no known shape under no telling
name is not found: this is a net, not a proof.
"""

from __future__ import annotations

import re

MASK = "[redacted]"

# Every pattern is linear in the text: no nested repetition, look-aheads bounded, and each begins
# with a literal. `sk-` asks for a digit or capital, because "task-specific" holds no key; nothing
# asks for a word's beginning, because "keyhf_..." does hold one.
_TOKENS = re.compile(
    r"hf_[A-Za-z0-9]{16,}"
    r"|sk-(?=[a-z_-]{0,40}[A-Z0-9])[A-Za-z0-9_-]{16,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"
    r"|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_[A-Za-z0-9_]{22,}"
    r"|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#\"'<>]+(?=@)")
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{8,}")
_NAME = (
    r"api[_-]?key|apikey|access[_-]?key|secret[_-]?key|private[_-]?key|client[_-]?secret"
    r"|(?:access|refresh|auth|session|api|bearer|id)[_-]?token|password|passwd|passphrase|secret"
)
_ASSIGNMENT = re.compile(
    rf"(?i)((?:{_NAME})[\"']?\s{{0,4}}(?:=|:(?=\s{{0,4}}[\"']))\s{{0,4}})"
    r"(?!\[redacted\])(\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',;&)}\]]+)"
)
_SECRET_NAME = re.compile(
    rf"(?i)(?:^|[_-])(?:{_NAME}|authorization|proxy[_-]authorization|cookie|set[_-]cookie)$|^token$"
)


def redact(text: str) -> str:
    """Replace every secret in `text` by `[redacted]`.

    Args:
        text: Any text: a message, a URL, a traceback.

    Returns:
        The text with the secrets gone and all else as it was; idempotent.

    >>> redact("GET https://ann:s3cret@host/x with Bearer abcdefgh12345678")
    'GET https://[redacted]@host/x with Bearer [redacted]'
    """
    text = _PEM.sub(MASK, text)
    text = _URL_CREDENTIALS.sub(MASK, text)
    text = _AUTHORIZATION.sub(rf"\1\2{MASK}", text)
    text = _TOKENS.sub(MASK, text)
    return _ASSIGNMENT.sub(rf"\1{MASK}", text)


def redact_values(value: object) -> object:
    """Redact every text within plain JSON values, and whatever stands under a telling name.

    >>> redact_values({"api_key": 1, "urls": ["https://a:b@host"]})
    {'api_key': '[redacted]', 'urls': ['https://[redacted]@host']}
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {
            name: MASK if is_secret_name(str(name)) and item is not None else redact_values(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [redact_values(item) for item in value]
    return value


def is_secret_name(name: str) -> bool:
    """Tell whether a field of this name holds a secret, whatever its value looks like.

    >>> is_secret_name("ANTHROPIC_API_KEY"), is_secret_name("max_new_tokens")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None
