from __future__ import annotations

import math

import pytest

from cert.backends.protocol import SamplingParams
from cert.core.errors import ConfigurationError, InvalidInput, PromptTooLong
from cert.trajectory.texts import check_sampling, check_text


@pytest.mark.parametrize("text", ["Hi", " Hi ", "a\0b", "\u200b", "é", "e\u0301", "😀"])
def test_a_text_comes_back_unchanged(text: str) -> None:
    assert check_text(text, what="prompt", max_chars=10) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "of type NoneType"),
        (b"bytes", "of type bytes"),
        (["a"], "of type list"),
        ("", "empty"),
        (" \t\r\n\u00a0", "empty"),
        ("abc\ud800", "lone surrogate at character 4"),
    ],
)
def test_what_cannot_be_tokenized_is_refused_with_the_reason(text: object, reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"the response .*{reason}") as caught:
        check_text(text, what="response", max_chars=10)
    assert type(caught.value) is InvalidInput


def test_the_limit_itself_fits_and_one_more_does_not() -> None:
    assert check_text("x" * 10, what="prompt", max_chars=10)
    with pytest.raises(PromptTooLong, match="has 11 characters; at most 10"):
        check_text("x" * 11, what="prompt", max_chars=10)


def test_length_is_looked_at_before_content() -> None:
    with pytest.raises(PromptTooLong):
        check_text(" " * 11, what="prompt", max_chars=10)


@pytest.mark.parametrize(
    ("sampling", "chat", "reason"),
    [
        (SamplingParams(max_new_tokens=0), "auto", "max_new_tokens"),
        (SamplingParams(temperature=-0.1), "auto", "temperature"),
        (SamplingParams(temperature=math.nan), "auto", "temperature"),
        (SamplingParams(temperature=math.inf), "auto", "temperature"),
        (SamplingParams(top_k=-1), "auto", "top_k"),
        (SamplingParams(top_p=0.0), "auto", "top_p"),
        (SamplingParams(seed=-1), "auto", "seed"),
        (SamplingParams(seed=2**53), "auto", "seed"),
        (SamplingParams(top_p=1.01), "auto", "top_p"),
        (SamplingParams(top_p=math.nan), "auto", "top_p"),
        (SamplingParams(stop=("a", "")), "auto", "stop"),
        (SamplingParams(), "sometimes", "chat must be one of auto, always, never"),
    ],
)
def test_settings_outside_their_domain_are_refused(
    sampling: SamplingParams, chat: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_sampling(sampling, chat)


@pytest.mark.parametrize("chat", ["auto", "always", "never"])
def test_the_ends_of_every_domain_are_inside(chat: str) -> None:
    check_sampling(SamplingParams(1, 0.0, 0, 1.0, 0, ("x",)), chat)
    check_sampling(SamplingParams(temperature=100.0, top_k=10**9, top_p=1e-9), chat)
