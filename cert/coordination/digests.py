"""One digest for everything that a run fixes beforehand."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def digest_of(content: Any) -> str:  # noqa: ANN401 - any JSON
    """`sha256:` over the canonical bytes (RFC 8785) of JSON.

    >>> digest_of({"b": 1, "a": [True]}) == digest_of({"a": [True], "b": 1.0})
    True
    """
    return "sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest()
