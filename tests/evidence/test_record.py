"""Records: their shape, what omitted content leaves out, and text that no one may see or encode."""

from __future__ import annotations

import json
import re

import pytest

from cert.backends.protocol import FinishReason
from cert.core.errors import AnalysisError
from cert.evidence.content import QUOTES_CONTENT
from cert.evidence.numbers import decode_number, encode_number
from cert.evidence.record import encode_record
from cert.inputs.case import PromptCase
from cert.ledger.canonical import CanonicalError, parse_canonical
from cert.ledger.control import utc_now
from tests.evidence.builders import (
    ALL,
    CASE,
    EMPTY,
    IMPOSSIBLE,
    analysis,
    error,
    generation,
    refused,
)
from tests.fakes import fake_identity


def test_an_analysis_record_word_for_word() -> None:
    record = analysis(time="2026-11-23T10:30:45.123Z")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", record.pop("id"))
    identity = fake_identity()
    signals = record.pop("signals")
    assert record == {
        "kind": "analysis",
        "schema": "1.0",
        "time": "2026-11-23T10:30:45.123Z",
        "clock": "system",
        "run_id": "run-1",
        "correlation_id": "req-123",
        "content": "full",
        "input": {"source": "prompts.txt", "line": 7},
        "prompt": {
            "id": "p-1",
            "group": "plain",
            "label": "very",
            "text": "How sure is it?",
            "token_ids": [1, 2, 3],
        },
        "generation": {
            "text": "very sure",
            "token_ids": [5, 9, 4095],
            "logprobs": [-0.1, -2.5, 0.0],
            "entropies": [0.3, 2.0, 1.0],
            "top_k_entropies": [0.2, 1.5, 1.0],
            "logit_margins": [3.0, 0.7, "inf"],
            "probability_margins": [0.9, 0.25, 1.0],
            "ranks": [0, 1, 0],
            "finish_reason": "eos",
        },
        "assessment": {
            "policy": {
                "id": "default",
                "version": 1,
                "digest": record["assessment"]["policy"]["digest"],
                "min_tokens": 1,
                "incomplete": "inconclusive",
            },
            "verdict": "pass",
            "reasons": [],
            "checks": [
                {
                    "signal": "perplexity",
                    "op": "<",
                    "threshold": 50.0,
                    "observed": signals["perplexity"],
                    "outcome": "pass",
                },
                {
                    "signal": "max_entropy",
                    "op": "<",
                    "threshold": 2.5,
                    "observed": 2.0,
                    "outcome": "pass",
                },
                {
                    "signal": "cumulative_surprise",
                    "op": "<",
                    "threshold": 10.0,
                    "observed": 2.5,
                    "outcome": "pass",
                },
            ],
        },
        "provenance": {
            "model": {
                "name": "fake",
                "digest": identity.digest,
                "architecture": "FakeForCausalLM",
                "parameters": 1000,
                "vocab_size": 65536,
                "max_context_tokens": 512,
            },
            "tokenizer": {"digest": identity.tokenizer_digest},
            "dtype": "float32",
            "device": "cpu",
            "quantization": None,
            "attention": "sdpa",
            "versions": {"fake": "1.0"},
            "sampling": {
                "max_new_tokens": 8,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "seed": 2**53 - 1,
                "stop": ["\n"],
            },
            "fallbacks": ["batch_rows:16->8"],
        },
        "timing": {"queued_s": 0.0, "generate_s": 0.123457, "total_s": 0.2, "cached": False},
    }
    assert signals["tokens"] == 3
    assert signals["nll"] == 2.6
    assert signals["min_logit_margin"] == 0.7


@pytest.mark.parametrize("name", ALL)
def test_every_record_has_canonical_bytes_that_read_back_as_it(name: str) -> None:
    line = encode_record(ALL[name])
    assert b"\n" not in line
    assert parse_canonical(line) == ALL[name]


def test_infinite_numbers_are_strings_and_nothing_measured_is_null() -> None:
    record = analysis(generation(IMPOSSIBLE))
    assert record["generation"]["logprobs"] == [-0.1, "-inf"]
    assert record["generation"]["logit_margins"] == ["inf", 0.7]
    assert record["signals"]["perplexity"] == "inf"
    check = record["assessment"]["checks"][0]
    assert (check["observed"], check["outcome"]) == ("inf", "fail")
    empty = analysis(generation(EMPTY))
    assert empty["signals"]["perplexity"] is None
    assert empty["signals"]["tokens"] == 0
    assert empty["assessment"]["checks"][0]["observed"] is None


def test_two_records_have_two_ids_and_the_time_is_utc_with_milliseconds() -> None:
    assert analysis()["id"] != analysis()["id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", utc_now())
    assert analysis()["time"][:13] <= utc_now()[:13]


def test_scoring_has_no_sampling_and_the_device_is_where_it_ran() -> None:
    scored = analysis(generation(finish=FinishReason.SCORED, device="cuda:0"))
    assert scored["provenance"]["sampling"] is None
    assert scored["provenance"]["device"] == "cuda:0"


def test_omitted_content_is_nowhere_in_the_record() -> None:
    secret_case = PromptCase(
        id="p-1", text="ZEBRA prompt", response="ZEBRA given", label="ZEBRA label", group="plain"
    )
    made = generation(prompt_token_ids=(31337, 31338), text="ZEBRA answer")
    record = analysis(made, case=secret_case, content="omitted")
    line = encode_record(record).decode()
    assert "ZEBRA" not in line
    assert "31337" not in line
    assert record["prompt"] == {"id": "p-1", "group": "plain"}
    assert not {"text", "token_ids", "ranks"} & record["generation"].keys()
    assert "ZEBRA" in encode_record(analysis(made, case=secret_case)).decode()
    full = analysis(made, case=secret_case)
    for name in ("signals", "assessment", "provenance"):
        assert record[name] == full[name]
    assert record["generation"]["logprobs"] == full["generation"]["logprobs"]


@pytest.mark.parametrize("quoted", ["ZEBRA prompt", "ZEBRA given", "ZEBRA label"])
def test_an_error_message_that_quotes_omitted_content_is_replaced(quoted: str) -> None:
    case = PromptCase(
        id="p", text="ZEBRA prompt", response="ZEBRA given", label="ZEBRA label", group="g"
    )
    wrong = AnalysisError("InvalidInput", f"cannot use {quoted!r}", recoverable=False)
    record = error(case=case, error=wrong, content="omitted")
    assert "ZEBRA" not in encode_record(record).decode()
    assert record["error"]["message"] == QUOTES_CONTENT
    assert record["prompt"] == {"id": "p", "group": "g"}
    full = error(case=case, error=wrong)
    assert full["error"]["message"] == wrong.message
    assert full["prompt"]["response"] == "ZEBRA given"


def test_an_omitted_error_keeps_a_message_that_quotes_nothing() -> None:
    assert error(content="omitted")["error"]["message"] == "still loading"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ZEBRA password=hunter2zz", "cannot use 'ZEBRA password=hunter2zz'"),
        ("ZEBRA " * 500, "cannot use " + "ZEBRA " * 500),
    ],
    ids=["redacted", "cut"],
)
def test_what_is_left_of_a_quotation_is_replaced(text: str, said: str) -> None:
    wrong = AnalysisError("InvalidInput", said, recoverable=False)
    case = PromptCase(id="p", text=text)
    assert text not in error(case=case, error=wrong)["error"]["message"]
    assert error(case=case, error=wrong, content="omitted")["error"]["message"] == QUOTES_CONTENT


def test_an_error_record() -> None:
    record = error()
    assert record["kind"] == "error"
    assert record["error"] == {
        "type": "ModelNotLoaded",
        "message": "still loading",
        "recoverable": True,
        "retry_after_s": 5.0,
    }
    assert record["prompt"] == {
        "id": "p-1",
        "group": "plain",
        "text": CASE.text,
        "label": "very",
    }
    assert record["provenance"]["device"] == "cpu"
    assert error(identity=None)["provenance"] is None


def test_a_refused_record() -> None:
    record = refused("no field 'prompt'")
    del record["id"], record["time"]
    assert record == {
        "kind": "refused",
        "schema": "1.0",
        "clock": "system",
        "run_id": "run-1",
        "correlation_id": None,
        "input": {"source": "-", "line": 3},
        "error": {
            "type": "InvalidInput",
            "message": "no field 'prompt'",
            "recoverable": False,
            "retry_after_s": None,
        },
    }


def test_secrets_are_redacted_from_messages_and_model_names() -> None:
    token = "hf_" + "a1B2" * 6
    wrong = AnalysisError("InternalError", f"denied for {token}", recoverable=False)
    assert token not in encode_record(error(error=wrong)).decode()
    assert token not in encode_record(refused(f"bad {token}")).decode()
    named = fake_identity("openai:m@https://ann:s3cret@host/v1")
    assert b"s3cret" not in encode_record(analysis(identity=named))


def test_long_messages_are_cut() -> None:
    wrong = AnalysisError("InternalError", "x" * 10_000, recoverable=False)
    assert len(error(error=wrong)["error"]["message"]) == 2000


def test_text_that_cannot_be_encoded_is_marked_in_errors_and_names() -> None:
    case = PromptCase(
        id="\ud800", text="a\udcff\U0001f600", group="\udfff", label="\ud83d", source="f\udce9.txt"
    )
    wrong = AnalysisError("InvalidInput", "lone \ud800", recoverable=False)
    record = parse_canonical(encode_record(error(case=case, error=wrong, correlation_id="\ud800")))
    assert record["prompt"] == {
        "id": "\ufffd",
        "text": "a\ufffd\U0001f600",
        "group": "\ufffd",
        "label": "\ufffd",
    }
    assert record["correlation_id"] == "\ufffd"
    assert record["input"] == {"source": "f\ufffd.txt", "line": 1}
    assert record["error"]["message"] == "lone \ufffd"  # type: ignore[index]
    line = encode_record(refused("bad \udcff", source="f\udce9.txt"))
    assert json.loads(line)["input"]["source"] == "f\ufffd.txt"
    # A measured prompt was encoded by a tokenizer; if it cannot be, that is no evidence.
    with pytest.raises(CanonicalError):
        encode_record(analysis(case=case))


@pytest.mark.parametrize("content", ["", "FULL", "committed"])
def test_other_content_modes_are_refused(content: str) -> None:
    for build in (analysis, error):
        with pytest.raises(ValueError, match="expected full or omitted"):
            build(content=content)


def test_numbers() -> None:
    for number in (0.0, -1.5, float("inf"), float("-inf")):
        assert decode_number(encode_number(number)) == number
    with pytest.raises(ValueError, match="NaN"):
        encode_number(float("nan"))


@pytest.mark.parametrize("value", ["Infinity", "1", None, True, [], float("nan"), float("inf")])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        decode_number(value)
