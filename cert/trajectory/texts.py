"""What a request must be before it costs anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError, InvalidInput, PromptTooLong

if TYPE_CHECKING:
    from cert.backends.protocol import SamplingParams

CHAT_MODES = ("auto", "always", "never")


def check_text(text: object, *, what: str, max_chars: int) -> str:
    """Let a text through that can be tokenized.

    Args:
        text: Whatever the caller gave.
        what: `prompt` or `response`, for the message.
        max_chars: Limit in characters, looked at before anything walks over the text.

    Returns:
        `text`, unchanged.

    Raises:
        InvalidInput: It is no string, is empty or only white space, or holds a lone surrogate.
        PromptTooLong: It has more than `max_chars` characters.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"the {what} is of type {type(text).__name__}, not a string")
    if len(text) > max_chars:
        raise PromptTooLong(f"the {what} has {len(text)} characters; at most {max_chars} are taken")
    if not text or text.isspace():
        raise InvalidInput(f"the {what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the {what} holds a lone surrogate at character {error.start + 1}: not valid Unicode"
        ) from error
    return text


def check_sampling(sampling: SamplingParams, chat: str) -> None:
    """Let settings through that mean something.

    Raises:
        ConfigurationError: A setting is outside its domain.
    """
    problems = {
        "max_new_tokens must be at least 1": sampling.max_new_tokens >= 1,
        "temperature must be a number >= 0": 0.0 <= sampling.temperature < math.inf,
        "top_k must be at least 0": sampling.top_k >= 0,
        "top_p must lie in (0, 1]": 0.0 < sampling.top_p <= 1.0,
        # Records are JSON (RFC 8785), where integers are exact below 2^53.
        "seed must be at least 0 and below 2^53": sampling.seed is None
        or 0 <= sampling.seed < 2**53,
        "a stop string must not be empty": all(sampling.stop),
        f"chat must be one of {', '.join(CHAT_MODES)}": chat in CHAT_MODES,
    }
    for problem, fine in problems.items():
        if not fine:
            raise ConfigurationError(problem)
