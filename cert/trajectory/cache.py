"""The engine's memory of what it measured: least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.backends.protocol import FinishReason

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cert.backends.protocol import Generation, ModelIdentity, SamplingParams
    from cert.inputs.case import PromptCase
    from cert.signals.summary import SignalSummary

TOKENS_EACH = 128
"""Tokens, prompt included, that an entry has room for: where texts are longer, fewer are kept, so
that memory is bounded by the number of entries (about 30 MB for 1,000)."""

_INCOMPLETE = (FinishReason.TIMEOUT, FinishReason.CANCELLED)


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """How a cache is doing.

    Attributes:
        hits: Requests answered from the cache since it was made or cleared.
        misses: Requests that could have been, and were not.
        size: Entries now.
        max_size: Entries at most.
    """

    hits: int
    misses: int
    size: int
    max_size: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What is kept of a request: everything but the verdict, which depends on the policy."""

    generation: Generation
    summary: SignalSummary
    identity: ModelIdentity


class ResultCache:
    """A bounded, thread-safe map from requests to measurements."""

    def __init__(self, max_size: int) -> None:
        """Make an empty cache of at most `max_size` entries; 0 keeps nothing."""
        self._max_size = max_size
        self._max_tokens = TOKENS_EACH * max_size
        self._tokens = 0
        self._entries: OrderedDict[Hashable, Measured] = OrderedDict()
        self._hits = 0
        self._misses = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Measured | None:
        """Look a measurement up and make it the most recently used one."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
                self._entries.move_to_end(key)
            return found

    def put(self, key: Hashable, measured: Measured) -> None:
        """Keep a measurement, unless it was cut off by a deadline or a cancellation.

        One that is longer than all that there is room for is not kept either.
        """
        if measured.generation.finish_reason in _INCOMPLETE:
            return
        if _tokens(measured) > self._max_tokens:
            return
        with self._lock:
            if (before := self._entries.pop(key, None)) is not None:
                self._tokens -= _tokens(before)
            self._entries[key] = measured
            self._tokens += _tokens(measured)
            while len(self._entries) > self._max_size or self._tokens > self._max_tokens:
                _, oldest = self._entries.popitem(last=False)
                self._tokens -= _tokens(oldest)

    def clear(self) -> None:
        """Forget everything, the counts too."""
        with self._lock:
            self._entries.clear()
            self._tokens = 0
            self._hits = self._misses = 0

    def info(self) -> CacheInfo:
        """Counts and sizes now."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, len(self._entries), self._max_size)


def _tokens(measured: Measured) -> int:
    generation = measured.generation
    return len(generation.prompt_token_ids) + len(generation.trace)


def cache_key(
    identity: ModelIdentity, case: PromptCase, sampling: SamplingParams, chat: str
) -> Hashable | None:
    """Everything that a measurement depends on; None where a repetition would differ.

    The prompt's id is part of it where tokens are drawn, because the draws are keyed by it.
    """
    drawn = case.response is None and sampling.temperature > 0.0
    if drawn and sampling.seed is None:
        return None
    return (
        identity.digest,
        identity.tokenizer_digest,
        identity.dtype,
        identity.quantization,
        identity.device,
        case.text,
        case.response,
        case.id if drawn else None,
        sampling,
        chat,
    )
