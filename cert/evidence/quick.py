"""The quick way through an analysis record: read once, hold against everything, yes or no.

A verification looks into a million records and hears yes a million times. So here a line is read
into typed structs, which is the schema's work, and written again, which shows that it was
canonical; its summary, checks and verdict are computed anew by the functions that made them. All
of that costs a fraction of the general way (`parse_line`, the JSON Schema, `recompute`).

What is said is yes or nothing: a line that is refused here may be right (its perplexity may be
beyond float64, its model may come up for the first time), and the general way decides and says why.
A yes is never wrong: whatever is accepted here, the general way accepts; tests hold the two
together.
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field

from cert.assessment.assess import conclude, judge, why_incomplete
from cert.assessment.policy import SIGNALS
from cert.evidence.lines import is_rewritten
from cert.evidence.numbers import INFINITE
from cert.evidence.recompute import is_rounding
from cert.ledger.canonical import MAX_SAFE_INTEGER, canonical_bytes
from cert.signals.summary import pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cert.assessment.policy import Policy

_INTEGER_LIMIT: Final = 10**15
_LIMIT: Final = 1e15
"""From here on floats are written otherwise than RFC 8785 asks for; the general way takes them."""
_MAX_INSTRUMENTS: Final = 1000

_Count = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
_Positive = Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)]
_Integer = Annotated[int, Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
_Number = (
    Annotated[int, Meta(gt=-_INTEGER_LIMIT, lt=_INTEGER_LIMIT)]
    | Annotated[float, Meta(gt=-_LIMIT, lt=_LIMIT)]
)
_NonNegative = (
    Annotated[int, Meta(ge=0, lt=_INTEGER_LIMIT)] | Annotated[float, Meta(ge=0, lt=_LIMIT)]
)
_Margin = _NonNegative | Literal["inf"]
_Logprob = (
    Annotated[int, Meta(gt=-_INTEGER_LIMIT, le=0)]
    | Annotated[float, Meta(gt=-_LIMIT, le=0)]
    | Literal["-inf"]
)
_Signal = _Number | Literal["inf"] | None
_Share = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)]
_Name = Annotated[str, Meta(min_length=1)]
_Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$", max_length=71)]

_FORMS: Final = re.compile(
    r"([0-9a-f]{64})? [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r" [0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}[.][0-9]{3}Z"
)
"""Of a link, an id and a time: one search costs less than three."""


class _Part(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A part of a record; its fields stand in canonical order, and are written in that order.

    Fields without a domain are those that must equal what is computed.
    """


class _Check(_Part):
    observed: _Signal
    op: str
    outcome: str
    signal: str
    threshold: _Number


class _Assessment(_Part):
    checks: list[_Check]
    policy: Raw
    reasons: list[str]
    verdict: str


class _Generation(_Part, kw_only=True):
    entropies: list[_NonNegative]
    finish_reason: Literal["eos", "length", "stop", "timeout", "cancelled", "scored"]
    logit_margins: list[_Margin]
    logprobs: list[_Logprob]
    probability_margins: list[_Share]
    ranks: list[_Count] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    token_ids: list[_Count] | UnsetType = UNSET
    top_k_entropies: list[_NonNegative]


class _Input(_Part):
    line: _Positive
    source: str


class _Prompt(_Part, kw_only=True):
    group: str | UnsetType = UNSET
    id: _Name
    label: str | UnsetType = UNSET
    response: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    token_ids: list[_Count] | UnsetType = UNSET


class _Sampling(_Part):
    max_new_tokens: _Positive
    seed: _Integer | None
    stop: list[str]
    temperature: _NonNegative
    top_k: _Count
    top_p: _Share


class _Provenance(_Part):
    attention: str
    device: str
    dtype: str
    fallbacks: list[str]
    model: Raw
    quantization: str | None
    sampling: _Sampling | None
    tokenizer: Raw
    versions: Raw


class _Signals(_Part):
    cumulative_surprise: _Signal
    max_entropy: _Signal
    max_surprisal: _Signal
    mean_entropy: _Signal
    mean_nll: _Signal
    mean_top_k_entropy: _Signal
    median_surprisal: _Signal
    min_logit_margin: _Signal
    min_probability_margin: _Signal
    nll: _Signal
    p90_surprisal: _Signal
    p99_surprisal: _Signal
    perplexity: _Signal
    surprising_tokens: int | None
    tokens: int


class _Timing(_Part):
    cached: bool
    generate_s: _NonNegative
    queued_s: _NonNegative
    total_s: _NonNegative


class QuickRecord(_Part, kw_only=True):
    """An analysis record, as far as it is looked at."""

    prev: str | UnsetType = field(name="_prev", default=UNSET)
    seq: _Count | UnsetType = field(name="_seq", default=UNSET)
    assessment: _Assessment
    clock: Literal["system"]
    commitment: _Digest | UnsetType = UNSET
    content: Literal["full", "committed", "omitted"]
    correlation_id: str | None
    generation: _Generation
    id: str
    input: _Input
    kind: Literal["analysis"]
    prompt: _Prompt
    provenance: _Provenance
    run_id: _Name
    schema: Literal["1.0"]
    signals: _Signals
    time: str
    timing: _Timing


_IN_ORDER = attrgetter(*SIGNALS)
_PERPLEXITY: Final = SIGNALS.index("perplexity")


class QuickReader:
    """Reads analysis records that are by policies and models which came up before."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(QuickRecord).decode
        self._encode = msgspec.json.Encoder().encode
        self._policies: dict[bytes, tuple[Policy, str]] = {}
        self._instruments: set[tuple[bytes, bytes, bytes]] = set()

    def learn_policy(self, policy: Policy) -> None:
        """Know a policy that is registered."""
        self._policies[canonical_bytes(state_policy(policy))] = policy, policy.digest

    def learn_instrument(self, line: bytes) -> None:
        """Know the model of a record that the general way found to be right in every respect."""
        try:
            record = self._decode(line)
        except (ValueError, RecursionError):
            return
        if len(self._instruments) >= _MAX_INSTRUMENTS:
            self._instruments.clear()
        self._instruments.add(_instrument(record))

    def read(self, line: bytes) -> tuple[QuickRecord, str] | None:
        """Read a line.

        Returns:
            The record, and the digest of the policy that it is by, if its bytes are canonical and
            follow the schema, and everything in it follows from its numbers and that policy. None
            says nothing.
        """
        try:
            record = self._decode(line)
        except (ValueError, RecursionError):
            return None
        known = self._policies.get(bytes(record.assessment.policy))
        if (
            known is None
            or _instrument(record) not in self._instruments
            or not is_rewritten(line, self._encode(record))
            or not _has_its_forms(record)
            or not _holds_its_content(record)
            or not _is_judged(record, known[0])
        ):
            return None
        return record, known[1]


def state_policy(policy: Policy) -> dict[str, object]:
    """The `policy` of an assessment."""
    return {
        "id": policy.id,
        "version": policy.version,
        "digest": policy.digest,
        "min_tokens": policy.min_tokens,
        "incomplete": policy.incomplete,
    }


def _instrument(record: QuickRecord) -> tuple[bytes, bytes, bytes]:
    provenance = record.provenance
    return bytes(provenance.model), bytes(provenance.tokenizer), bytes(provenance.versions)


def _has_its_forms(record: QuickRecord) -> bool:
    prev = "" if isinstance(record.prev, UnsetType) else record.prev
    if not prev and record.prev is not UNSET:
        return False
    return _FORMS.fullmatch(f"{prev} {record.id} {record.time}") is not None


def _holds_its_content(record: QuickRecord) -> bool:
    """Whether content is there if it is full, and nothing of it otherwise."""
    prompt, generation = record.prompt, record.generation
    always = (
        prompt.text,
        prompt.token_ids,
        generation.text,
        generation.token_ids,
        generation.ranks,
    )
    if record.content == "full":
        return UNSET not in always and record.commitment is UNSET
    return all(one is UNSET for one in (*always, prompt.label, prompt.response)) and (
        record.commitment is UNSET
    ) == (record.content == "omitted")


def _is_judged(record: QuickRecord, policy: Policy) -> bool:
    """Whether summary, checks and verdict follow."""
    generation, signals, assessment = record.generation, record.signals, record.assessment
    count = len(generation.logprobs)
    if not (
        count
        == len(generation.entropies)
        == len(generation.top_k_entropies)
        == len(generation.logit_margins)
        == len(generation.probability_margins)
    ):
        return False
    for one in (generation.token_ids, generation.ranks):
        if not isinstance(one, UnsetType) and len(one) != count:
            return False
    recorded = _IN_ORDER(signals)
    logprobs: list[Any] = generation.logprobs
    margins: list[Any] = generation.logit_margins
    nll: Any = signals.nll
    is_finite = "inf" not in margins and "-inf" not in logprobs
    if not is_finite:
        logprobs, margins = _as_numbers(logprobs), _as_numbers(margins)
        recorded, nll = tuple(_as_numbers(recorded)), INFINITE.get(nll, nll)
    values = pool(
        logprobs,
        generation.entropies,
        generation.top_k_entropies,
        margins,
        generation.probability_margins,
    )
    if recorded != values and not _differs_by_rounding(recorded, values):
        return False
    reasons = why_incomplete(count, generation.finish_reason, policy)
    if assessment.reasons != reasons or len(assessment.checks) != len(policy.checks):
        return False
    outcomes = []
    for check, rule in zip(assessment.checks, policy.checks, strict=True):
        observed = getattr(signals, rule.signal)
        number = observed if is_finite else INFINITE.get(observed, observed)
        outcome = judge(rule, number, nll, is_partial=bool(reasons))
        if (
            check.outcome != outcome
            or check.observed != observed
            or check.threshold != rule.threshold
            or check.op != rule.op
            or check.signal != rule.signal
        ):
            return False
        outcomes.append(outcome)
    return assessment.verdict == conclude(outcomes, reasons)


def _as_numbers(values: Iterable[Any]) -> list[Any]:
    """The values with infinities for their texts."""
    return [INFINITE[one] if type(one) is str else one for one in values]


def _differs_by_rounding(recorded: tuple[object, ...], values: tuple[object, ...]) -> bool:
    """Whether all is the same but for the last bits of the perplexity."""
    stated, computed = recorded[_PERPLEXITY], values[_PERPLEXITY]
    return (
        isinstance(stated, int | float)
        and isinstance(computed, float)
        and is_rounding(stated, computed)
        and recorded[:_PERPLEXITY] == values[:_PERPLEXITY]
        and recorded[_PERPLEXITY + 1 :] == values[_PERPLEXITY + 1 :]
    )
