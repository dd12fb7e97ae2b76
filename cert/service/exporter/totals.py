"""What is counted of a ledger's records. The ledger is not trusted: no record breaks the count.

Every key here is an enumeration of this file, or the id of a policy that has the form of one, of
at most `MAX_POLICIES`: whatever else a record says is counted as `other`.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from datetime import datetime
from typing import Final

import msgspec

from cert.observability.metrics import DURATION_BUCKETS_S, PERPLEXITY_BUCKETS, Operation, Status

OTHER: Final = "other"
KINDS: Final = (
    "analysis",
    "error",
    "refused",
    "run",
    "policy",
    "note",
    "health",
    "genesis",
    "key",
    "recovered",
    "erased",
    "pruned",
    "call",
    "replicate",
    "coordination",
    OTHER,
)
COMMANDS: Final = ("analyze", "batch", "serve", "coordinate", "canary", OTHER)
OUTCOMES: Final = ("pass", "fail", "inconclusive", "incomplete", OTHER)
VERDICTS: Final = ("pass", "fail", "inconclusive")
STRATEGIES: Final = ("sequential", "parallel", "debate", OTHER)
CALL_OUTCOMES: Final = ("ok", "transient", "invalid", "rejected", "fatal", "later", "budget")
CALL_DIRECTIONS: Final = ("input", "output", "cache_read", "cache_write")
COORDINATION_VERDICTS: Final = ("beneficial", "harmful", "inconclusive", "undefined")
MAX_POLICIES: Final = 100
MAX_OPEN_RUNS: Final = 1000
MAX_SECONDS: Final = 1e9
"""A duration above is no measurement, and would spoil the sum for good."""
MAX_TOKENS: Final = 1e12
MAX_USD: Final = 1e9
"""What one call may say that it took; the same."""
MAX_RATIO: Final = 1e9

_OUTCOME_BY_CODE: Final = {0: "pass", 1: "fail", 3: "inconclusive", 4: "incomplete"}
_STATUS_BY_REASON: Final = {"timeout": Status.TIMEOUT, "cancelled": Status.CANCELLED}
_STATUS_BY_ERROR: Final = {
    "InvalidInput": Status.REFUSED,
    "PromptTooLong": Status.REFUSED,
    "GenerationTimeout": Status.TIMEOUT,
    "GenerationCancelled": Status.CANCELLED,
}
_LOOKED_INTO: Final = ("analysis", "error", "refused", "run", "call", "coordination")
_SCORED: Final = "scored"
_POLICY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EXEMPLAR: Final = re.compile(r"[A-Za-z0-9._:/@+-]{1,100}")
_MAX_RUN_ID_CHARS: Final = 64
_LEAST_PERPLEXITY: Final = 1 - 1e-6
_INFINITE: Final = "inf"


class _PolicyName(msgspec.Struct):
    id: str


class _Assessment(msgspec.Struct):
    policy: _PolicyName
    verdict: str


class _Signals(msgspec.Struct):
    perplexity: float | str | None = None


class _Timing(msgspec.Struct):
    total_s: float
    cached: bool = False


class _Generation(msgspec.Struct):
    finish_reason: str


class _Error(msgspec.Struct):
    type: str


class _Counts(msgspec.Struct):
    passed: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors: int = 0
    refused: int = 0

    def outcome(self) -> str:
        """What a process would have ended with that tolerates no error."""
        if self.errors or self.refused:
            return "incomplete"
        if self.failed:
            return "fail"
        if self.inconclusive:
            return "inconclusive"
        return "pass" if self.passed else OTHER


class _Run(msgspec.Struct):
    phase: str
    command: str | None = None
    exit_code: int | None = None
    counts: _Counts | None = None


class _Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class _Failure(msgspec.Struct):
    kind: str


class _Call(msgspec.Struct):
    is_reused: bool
    usage: _Usage | None = None
    cost_usd: float | None = None
    failure: _Failure | None = None


class _Ratio(msgspec.Struct):
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None


class _Strategy(msgspec.Struct):
    name: str
    verdict: str
    gamma: _Ratio


class _Coordination(msgspec.Struct):
    strategies: list[_Strategy]


class _Record(msgspec.Struct):
    """A record, as far as it is counted; the rest is passed over without being built."""

    kind: str
    time: str | None = None
    run_id: str | None = None
    correlation_id: str | None = None
    assessment: _Assessment | None = None
    signals: _Signals | None = None
    timing: _Timing | None = None
    generation: _Generation | None = None
    error: _Error | None = None
    run: _Run | None = None
    call: _Call | None = None
    coordination: _Coordination | None = None


class _Kind(msgspec.Struct):
    kind: str


_decode = msgspec.json.Decoder(_Record).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode


_PERPLEXITIES: Final[tuple[float, ...]] = tuple(map(float, PERPLEXITY_BUCKETS))
_DURATIONS: Final[tuple[float, ...]] = tuple(map(float, DURATION_BUCKETS_S))


class Histogram(msgspec.Struct):
    """How many values were at most how large.

    Attributes:
        counts: By bucket, not summed up; the last one is for what is above all bounds.
        sum: Of the finite values.
        infinite: How many were not; they are in the last bucket, too.
    """

    counts: list[int]
    sum: float = 0.0
    infinite: int = 0

    @classmethod
    def over(cls, bounds: tuple[float, ...]) -> Histogram:
        """Make an empty one."""
        return cls([0] * (len(bounds) + 1))

    def observe(self, value: float, bounds: tuple[float, ...]) -> int:
        """Count a value; returns the number of its bucket."""
        bucket = bisect_left(bounds, value)
        self.counts[bucket] += 1
        if math.isinf(value):
            self.infinite += 1
        else:
            self.sum += value
        return bucket


class CommandTotals(msgspec.Struct):
    """What became of the runs of a command.

    Attributes:
        outcomes: Runs by outcome.
        last_s: Unix time of the last end; None where there was none.
        last_success_s: Of the last end with outcome `pass`.
        last_exit_code: Of the last end that had one.
    """

    outcomes: dict[str, int] = {}
    last_s: float | None = None
    last_success_s: float | None = None
    last_exit_code: int | None = None


class Gamma(msgspec.Struct):
    """The latest ratio of a kind of strategy; None where it has none."""

    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None


class Comparisons(msgspec.Struct):
    """The count of comparisons of agents.

    Attributes:
        calls: By how they ended; those reused from earlier runs are none.
        tokens: By direction, as far as the server said.
        cost_usd: Of the calls that have a price.
        verdicts: On strategies.
        gammas: The latest one by kind of strategy.
    """

    calls: dict[str, int] = {}
    tokens: dict[str, int] = {}
    cost_usd: float = 0.0
    verdicts: dict[str, int] = {}
    gammas: dict[str, Gamma] = {}


class Totals(msgspec.Struct):
    """The count of a ledger.

    Attributes:
        kinds: Records by kind.
        statuses: Requests by how they ended.
        durations: By operation.
        perplexity: Of measured texts.
        verdicts: By policy, then by verdict.
        cache_hits: Answers found in the cache.
        cache_misses: Measured texts that were not.
        commands: Runs by command.
        open_runs: Command by id, of the runs that began and have no end; the oldest first.
        comparisons: What `coordinate` recorded.
    """

    kinds: dict[str, int] = {}
    statuses: dict[str, int] = {}
    durations: dict[str, Histogram] = {}
    perplexity: Histogram = msgspec.field(default_factory=lambda: Histogram.over(_PERPLEXITIES))
    verdicts: dict[str, dict[str, int]] = {}
    cache_hits: int = 0
    cache_misses: int = 0
    commands: dict[str, CommandTotals] = {}
    open_runs: dict[str, str] = {}
    comparisons: Comparisons = msgspec.field(default_factory=Comparisons)

    @property
    def records(self) -> int:
        """All of them."""
        return sum(self.kinds.values())


class Exemplar(msgspec.Struct, frozen=True):
    """A value, and the request that it is of."""

    correlation_id: str
    value: float


class Counter:
    """Adds records to totals.

    Attributes:
        totals: So far.
        exemplars: The last one, by histogram (an operation, or `perplexity`) and bucket.
    """

    def __init__(self, totals: Totals) -> None:
        self.totals = totals
        self.exemplars: dict[tuple[str, int], Exemplar] = {}

    def count(self, line: bytes) -> None:
        """Count a record, whatever it holds; what is none is counted as of kind `other`."""
        try:
            record = _decode(line)
        except (ValueError, RecursionError):
            _add(self.totals.kinds, _kind_alone(line))
            return
        kind = record.kind
        if kind not in KINDS or not self._take(record):
            kind = OTHER
        _add(self.totals.kinds, kind)

    def _take(self, record: _Record) -> bool:
        """Count what is particular to a kind; False where it is not what that kind has."""
        if record.kind == "analysis":
            return self._take_analysis(record)
        if record.kind == "run":
            return self._take_run(record)
        if record.kind == "call":
            return self._take_call(record.call)
        if record.kind == "coordination":
            return self._take_result(record.coordination)
        if record.kind == "refused":
            _add(self.totals.statuses, Status.REFUSED.value)
        elif record.kind == "error":
            if record.error is None:
                return False
            status = _STATUS_BY_ERROR.get(record.error.type, Status.ERROR)
            _add(self.totals.statuses, status.value)
        return True

    def _take_analysis(self, record: _Record) -> bool:
        assessment, timing, generation = record.assessment, record.timing, record.generation
        if assessment is None or timing is None or generation is None or record.signals is None:
            return False
        perplexity = _perplexity(record.signals.perplexity)
        is_right = assessment.verdict in VERDICTS and 0 <= timing.total_s <= MAX_SECONDS
        if not is_right or math.isnan(perplexity or 1):
            return False
        totals = self.totals
        status = _STATUS_BY_REASON.get(generation.finish_reason, Status.SUCCESS)
        _add(totals.statuses, status.value)
        is_scored = generation.finish_reason == _SCORED
        operation = (Operation.SCORE if is_scored else Operation.ANALYZE).value
        if operation not in totals.durations:
            totals.durations[operation] = Histogram.over(_DURATIONS)
        bucket = totals.durations[operation].observe(timing.total_s, _DURATIONS)
        self._remember(operation, bucket, record, timing.total_s)
        if perplexity is not None:
            bucket = totals.perplexity.observe(perplexity, _PERPLEXITIES)
            self._remember("perplexity", bucket, record, perplexity)
        if timing.cached:
            totals.cache_hits += 1
        else:
            totals.cache_misses += 1
        policy = assessment.policy.id
        if policy not in totals.verdicts and (
            len(totals.verdicts) >= MAX_POLICIES or not _POLICY_ID.fullmatch(policy)
        ):
            policy = OTHER
        _add(totals.verdicts.setdefault(policy, {}), assessment.verdict)
        return True

    def _take_call(self, call: _Call | None) -> bool:
        if call is None:
            return False
        outcome = "ok" if call.failure is None else call.failure.kind
        tokens = {} if call.usage is None else msgspec.structs.asdict(call.usage)
        cost_usd = call.cost_usd or 0.0
        is_right = all(0 <= count <= MAX_TOKENS for count in tokens.values())
        if outcome not in CALL_OUTCOMES or not is_right or not 0 <= cost_usd <= MAX_USD:
            return False
        if call.is_reused:
            return True
        comparisons = self.totals.comparisons
        _add(comparisons.calls, outcome)
        for name, count in tokens.items():
            direction = name.removesuffix("_tokens")
            comparisons.tokens[direction] = comparisons.tokens.get(direction, 0) + count
        comparisons.cost_usd += cost_usd
        return True

    def _take_result(self, result: _Coordination | None) -> bool:
        if result is None or not all(map(_is_right, result.strategies)):
            return False
        comparisons = self.totals.comparisons
        for one in result.strategies:
            _add(comparisons.verdicts, one.verdict)
            kind = one.name if one.name in STRATEGIES else OTHER
            gamma = one.gamma
            comparisons.gammas[kind] = Gamma(gamma.estimate, gamma.lower, gamma.upper)
        return True

    def _remember(self, histogram: str, bucket: int, record: _Record, value: float) -> None:
        name = record.correlation_id
        if name is not None and _EXEMPLAR.fullmatch(name):
            self.exemplars[histogram, bucket] = Exemplar(name, value)

    def _take_run(self, record: _Record) -> bool:
        run, run_id = record.run, record.run_id
        if run is None or run_id is None or len(run_id) > _MAX_RUN_ID_CHARS:
            return False
        open_runs = self.totals.open_runs
        if run.phase in {"begin", "resumed"}:
            open_runs.pop(run_id, None)
            open_runs[run_id] = run.command if run.command in COMMANDS else OTHER
            if len(open_runs) > MAX_OPEN_RUNS:
                del open_runs[next(iter(open_runs))]
            return True
        if run.phase not in {"end", "interrupted"}:
            return False
        command = self.totals.commands.setdefault(open_runs.pop(run_id, OTHER), CommandTotals())
        code = run.exit_code
        if run.phase == "interrupted":
            outcome = "incomplete"
        elif code is None:  # of a server's runs, which end without its ending
            outcome = OTHER if run.counts is None else run.counts.outcome()
        else:
            outcome = _OUTCOME_BY_CODE.get(code, OTHER)
            command.last_exit_code = code if 0 <= code <= 255 else None  # noqa: PLR2004 - what a process has
        _add(command.outcomes, outcome)
        command.last_s = _unix_time(record.time) or command.last_s
        if outcome == "pass":
            command.last_success_s = command.last_s
        return True


def _kind_alone(line: bytes) -> str:
    """The kind of a line whose members are not of the form of those that are counted.

    Of the kinds that are looked into, that makes it none of them; others may have members of
    these names that mean something else.
    """
    try:
        kind = _decode_kind(line).kind
    except (ValueError, RecursionError):
        return OTHER
    return kind if kind in KINDS and kind not in _LOOKED_INTO else OTHER


def _is_right(strategy: _Strategy) -> bool:
    gamma = strategy.gamma
    return strategy.verdict in COORDINATION_VERDICTS and all(
        value is None or 0 <= value <= MAX_RATIO
        for value in (gamma.estimate, gamma.lower, gamma.upper)
    )


def _perplexity(value: float | str | None) -> float | None:
    """The value, None where none was measured, NaN where it is none."""
    if value is None:
        return None
    if isinstance(value, str):
        return math.inf if value == _INFINITE else math.nan
    return value if value >= _LEAST_PERPLEXITY else math.nan


def _unix_time(text: str | None) -> float | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()


def _add(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
