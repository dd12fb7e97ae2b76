"""Records for the ledger's figures: what `cert batch` writes, without a model.

Summaries and verdicts are computed from random readings by the program's own functions, and records
are made by its own builders, so that `cert verify --deep` finds nothing wrong with them.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cert.assessment.assess import assess
from cert.assessment.policy import Policy, Threshold
from cert.backends.protocol import FinishReason, Generation, ModelIdentity, SamplingParams
from cert.core.errors import AnalysisError
from cert.evidence.policy_record import build_policy_record
from cert.evidence.record import build_analysis_record, build_error_record, encode_record
from cert.evidence.run_record import RunBegin, RunCounts, RunInput, build_run_record, load_host
from cert.inputs.case import PromptCase
from cert.signals.summary import summarize
from cert.signals.trace import build_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.assessment.verdict import Assessment
    from cert.signals.summary import SignalSummary

POLICY = Policy(id="answers", version=1, checks=(Threshold("max_surprisal", "<", 3.0),))
RUN_ID = "8d5f6f0e-9c0c-4a43-9f0f-5a0d1d8b7c11"
SAMPLING = SamplingParams(max_new_tokens=64)
DIGEST = "sha256:" + hashlib.sha256(b"benchmark").hexdigest()
IDENTITY = ModelIdentity(
    name="example-model",
    digest=DIGEST,
    tokenizer_digest=DIGEST,
    files={"model.safetensors": DIGEST.removeprefix("sha256:")},
    architecture="LlamaForCausalLM",
    dtype="float32",
    device="cpu",
    quantization=None,
    attention="sdpa",
    vocab_size=1 << 15,
    max_context_tokens=2048,
    parameters=10_000_000,
    versions={"torch": "2.13.0", "transformers": "5.23.0"},
)
MESSAGE = "the text was not complete in time, and what there was of it is not kept; " * 9
"""Makes an `error` record about 1.6 KB long."""
TEXTS = 2000
"""Different measured texts; each record of a text has an id, a prompt id, a line and times of its
own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What records look like.

    Attributes:
        tokens: Measured tokens of each; 0 for `error` records with a long message.
        content: `full` or `omitted`.
        finish: Whether the text was written or scored.
    """

    tokens: int
    content: str
    finish: FinishReason


SHAPES = {
    "small": Shape(1, "omitted", FinishReason.SCORED),
    "full": Shape(64, "full", FinishReason.LENGTH),
    "error": Shape(0, "omitted", FinishReason.LENGTH),
}
"""`small` is the least that the schema lets a measured text be: one token, scored, one check."""


@dataclass(frozen=True, slots=True)
class Text:
    """One measured text."""

    prompt: str
    generation: Generation
    summary: SignalSummary
    assessment: Assessment


def make_texts(shape: Shape) -> list[Text]:
    """Measure random readings, the same every time."""
    rng = random.Random(7)  # noqa: S311 - inputs, not secrets
    return [_make_text(rng, shape) for _ in range(TEXTS)]


def _make_text(rng: random.Random, shape: Shape) -> Text:
    places = range(shape.tokens)
    trace = build_trace(
        [rng.randrange(IDENTITY.vocab_size) for _ in places],
        [-rng.expovariate(0.5) for _ in places],
        [rng.uniform(0, 6) for _ in places],
        [rng.uniform(0, 2) for _ in places],
        [rng.expovariate(1) for _ in places],
        [rng.random() for _ in places],
        [int(rng.expovariate(0.3)) for _ in places],
    )
    generation = Generation(
        prompt_token_ids=tuple(rng.randrange(IDENTITY.vocab_size) for _ in range(12)),
        text=" ".join(rng.choices(("certain", "perhaps", "river", "measured"), k=shape.tokens)),
        finish_reason=shape.finish,
        trace=trace,
        sampling=SAMPLING,
        device="cpu",
        queued_s=0.0,
        generate_s=rng.uniform(0.1, 2.0),
        fallbacks=(),
    )
    summary = summarize(trace)
    prompt = " ".join(rng.choices(("how", "sure", "is", "the", "model", "of", "this"), k=9))
    assessment = assess(summary, POLICY, finish_reason=generation.finish_reason.value)
    return Text(prompt, generation, summary, assessment)


def make_bodies(texts: list[Text], shape: Shape, first: int = 0) -> Iterator[bytes]:
    """Build and encode records without end, the same work as for real ones."""
    for number in itertools.count(first):
        text = texts[number % len(texts)]
        case = PromptCase(
            id=f"p-{number:07d}", text=text.prompt, source="prompts.jsonl", line=number + 1
        )
        if not shape.tokens:
            yield encode_record(_make_error(case, shape))
            continue
        record = build_analysis_record(
            run_id=RUN_ID,
            case=case,
            generation=text.generation,
            summary=text.summary,
            assessment=text.assessment,
            identity=IDENTITY,
            correlation_id=None,
            content=shape.content,
            total_s=text.generation.generate_s + 0.01 + number % 1000 / 1e6,
            cached=False,
        )
        yield encode_record(record)


def _make_error(case: PromptCase, shape: Shape) -> dict[str, object]:
    return build_error_record(
        run_id=RUN_ID,
        case=case,
        error=AnalysisError("GenerationTimeout", MESSAGE, recoverable=True, retry_after=5.0),
        identity=IDENTITY,
        correlation_id=None,
        content=shape.content,
    )


def begin_bodies(shape: Shape) -> list[bytes]:
    """What stands before the measured texts: the policy, and the beginning of the run."""
    details = RunBegin(
        command="batch",
        job=DIGEST,
        inputs=(RunInput("prompts.jsonl"),),
        policy=POLICY,
        content=shape.content,
        sampling=SAMPLING,
        limit=None,
        identity=IDENTITY,
        host=load_host(),
    )
    begin = build_run_record(run_id=RUN_ID, phase="begin", details=details)
    return [encode_record(build_policy_record(POLICY)), encode_record(begin)]


def end_body(texts: list[Text], shape: Shape, count: int) -> bytes:
    """The end of a run of so many records, counted right."""
    if not shape.tokens:
        return _encode_end(RunCounts(errors=count))
    whole, rest = divmod(count, len(texts))
    verdicts = [one.assessment.verdict.value for one in texts]
    counted = {
        verdict: whole * verdicts.count(verdict) + verdicts[:rest].count(verdict)
        for verdict in ("pass", "fail", "inconclusive")
    }
    return _encode_end(
        RunCounts(
            passed=counted["pass"], failed=counted["fail"], inconclusive=counted["inconclusive"]
        )
    )


def _encode_end(counts: RunCounts) -> bytes:
    return encode_record(build_run_record(run_id=RUN_ID, phase="end", details=counts, exit_code=0))
