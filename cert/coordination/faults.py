"""What a failed attempt means: for the call, the breaker, the limit and the budget.

    AttemptError            the call ends here, with `failure`
    ├── UnsentError             nothing was sent: what was asked cannot be, or costs too much
    └── PassingError        worth another attempt; the call ends with `failure` when there is none
        ├── ServiceDownError    5xx, 529, no connection: counts for the circuit breaker
        └── ThrottledError      429: lowers the concurrency

| status                                     | meaning                                     |
|--------------------------------------------|---------------------------------------------|
| 401, 402, 403, 404, any spend limit, 3xx   | fatal: every call of the run would fail     |
| 429                                        | passing; later if the wait is over 300 s    |
| 408, 409, 499                              | passing                                     |
| 500, 502, 503, 504, 520 to 529             | passing, the service is down                |
| any other                                  | rejected                                    |

An error object that comes with status 200, or within a stream, has the status of its type.
"""

from __future__ import annotations

import email.utils
import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cert.coordination.protocol import CallFailure
from cert.core.errors import CertError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.coordination.protocol import Usage
    from cert.coordination.scrub import Scrubber

_STATUS_BY_TYPE: Final = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)
_HINTS: Final = MappingProxyType(
    {
        300: "redirects are not followed, they could take the key elsewhere:"
        " give the base URL that answers itself",
        401: "the key is not valid here: set ANTHROPIC_API_KEY, or check the base URL",
        402: "the account's credit or payment has to be settled first",
        403: "the key has no permission for this model or server",
        404: "check the model's name, and the base URL, which goes without /v1/messages",
    }
)
_SPEND_CODES: Final = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
        "insufficient_quota",
    }
)
# The codes are newer than the servers: older ones say it in words only.
_SPEND_WORDS: Final = re.compile(
    r"(?i)credit balance|spend(?:ing)?[ _-](?:limit|cap)|usage limits?\b|insufficient[ _]quota"
)
_PASSING: Final = frozenset({408, 409, 499})
_DOWN: Final = frozenset({500, 502, 503, 504, *range(520, 530)})
# A gateway that gave up waiting does not know whether the model went on.
_MAYBE_BILLED: Final = frozenset({408, 499, 504, 524})
_PAYMENT, _THROTTLED, _REDIRECTS = 402, 429, range(300, 400)


class AttemptError(CertError):
    """An attempt that ends its call.

    Attributes:
        failure: What it means for the run.
        error: Name of what went wrong, for records.
        status: HTTP status; None where none came.
        request_id: The server's name for the request.
        is_maybe_billed: Whether it may have been charged for, and nobody said how much.
        usage: What it was charged for, where the server said so.
    """

    def __init__(  # noqa: PLR0913 - everything that one failure says
        self,
        message: str,
        *,
        failure: CallFailure,
        error: str,
        status: int | None = None,
        request_id: str | None = None,
        is_maybe_billed: bool = False,
        usage: Usage | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.failure = failure
        self.error = error
        self.status = status
        self.request_id = request_id
        self.is_maybe_billed = is_maybe_billed
        self.usage = usage


class UnsentError(AttemptError):
    """Nothing was sent."""


class PassingError(AttemptError):
    """An attempt that failed for a reason that may pass."""

    recoverable = True


class ServiceDownError(PassingError):
    """The service failed, or could not be reached."""


class ThrottledError(PassingError):
    """The service asks for fewer calls."""


def build_status_error(
    status: int,
    body: object,
    *,
    headers: Mapping[str, str],
    scrub: Scrubber,
    now_s: float,
) -> AttemptError:
    """Say what an error answer means.

    Args:
        status: HTTP status. For one that is no error, the type in the body decides.
        body: The answer as JSON if it is JSON, as text otherwise.
        headers: The answer's, with names in lower case.
        scrub: Applied to whatever the server says.
        now_s: Seconds since 1970, for a `retry-after` that is a date.
    """
    kind, code, words = _read(body)
    meant = _STATUS_BY_TYPE.get(kind, status) if status < _REDIRECTS.start else status
    error = scrub(code or kind or f"http_{meant}", max_chars=100)
    is_spend_limit = (
        code in _SPEND_CODES
        or kind == "billing_error"
        or (meant in {400, _THROTTLED} and _SPEND_WORDS.search(words) is not None)
    )
    if is_spend_limit:
        meant = _PAYMENT
    category, failure = _meaning(meant)
    return category(
        scrub(f"HTTP {status} {error}: {words or 'no explanation'}"),
        failure=failure,
        error=error,
        status=status,
        request_id=short_header(headers, "request-id", scrub),
        # What came with a status of success came after the model had begun.
        is_maybe_billed=meant in _MAYBE_BILLED or status < _REDIRECTS.start,
        hint=_HINTS.get(_REDIRECTS.start if meant in _REDIRECTS else meant),
        retry_after=parse_retry_after_s(headers, now_s=now_s)
        if issubclass(category, PassingError)
        else None,
    )


def _meaning(status: int) -> tuple[type[AttemptError], CallFailure]:
    if status == _THROTTLED:
        return ThrottledError, CallFailure.TRANSIENT
    if status in _DOWN:
        return ServiceDownError, CallFailure.TRANSIENT
    if status in _PASSING:
        return PassingError, CallFailure.TRANSIENT
    if status in _HINTS or status in _REDIRECTS:
        return AttemptError, CallFailure.FATAL
    if status < _REDIRECTS.start:
        return AttemptError, CallFailure.INVALID
    return AttemptError, CallFailure.REJECTED


def unsendable(reason: str) -> UnsentError:
    """Build the error of a call that cannot be sent."""
    return UnsentError(
        f"the call cannot be sent: {reason}", failure=CallFailure.REJECTED, error="invalid_call"
    )


def parse_retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Return the seconds that a server asks to wait.

    Returns:
        At least 0, infinity included; None where it does not say, or says nothing usable.
    """
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if not math.isnan(wait_s):
            return max(wait_s, 0.0)
    try:
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
        return max(date.timestamp() - now_s, 0.0)
    except (KeyError, ValueError, OverflowError):
        return None


def short_header(headers: Mapping[str, str], name: str, scrub: Scrubber) -> str | None:
    """Return a header fit for a record; None where it is not there."""
    value = headers.get(name)
    return None if value is None else scrub(value, max_chars=200)


def _read(body: object) -> tuple[str, str, str]:
    """Return type, code and words of an error body; "" for what it does not have."""
    if isinstance(body, str):
        return "", "", body
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "", "", "" if body is None else str(body)
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    return _text(error.get("type")), _text(code), _text(error.get("message"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
