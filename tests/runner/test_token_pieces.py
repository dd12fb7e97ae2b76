from __future__ import annotations

import pytest

from cert.runner.token_pieces import split_tokens
from tests.model_factory import build_tokenizer


@pytest.mark.parametrize(
    "text",
    ["The quick brown fox", "žluťoučký kůň", "日本語 🙂🙂 x", "a\n\nb\t", "", "🙂"],
)
def test_tokens_share_the_text_without_loss(text: str) -> None:
    tokenizer = build_tokenizer("llama")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = split_tokens(tokenizer.decode, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_character_of_several_tokens_belongs_to_the_last_of_them() -> None:
    tokenizer = build_tokenizer("llama")
    ids = tokenizer.encode("a🙂", add_special_tokens=False).ids
    assert split_tokens(tokenizer.decode, ids) == ["a", "", "", "", "🙂"]


def test_a_character_that_is_cut_off_is_shown_as_such() -> None:
    tokenizer = build_tokenizer("llama")
    ids = tokenizer.encode("a🙂", add_special_tokens=False).ids[:-1]
    pieces = split_tokens(tokenizer.decode, ids)
    assert pieces[:3] == ["a", "", ""]
    assert set(pieces[3]) == {"\ufffd"}


def test_splitting_a_long_text_takes_linear_time() -> None:
    decoded = 0

    def decode(ids: object) -> str:
        nonlocal decoded
        assert isinstance(ids, list)
        decoded += len(ids)
        return "x" * len(ids)

    split_tokens(decode, list(range(5000)))
    assert decoded < 5 * 5000
