"""Commitments: they bind what they hide, and hide it."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.backends.protocol import FinishReason
from cert.core.errors import AnalysisError
from cert.evidence.commitment import commit, verify_commitment
from cert.evidence.content import QUOTES_CONTENT
from cert.evidence.record import encode_record
from cert.inputs.case import PromptCase
from cert.inputs.ids import content_id
from cert.ledger.canonical import CanonicalError, parse_canonical
from cert.ledger.errors import ProofError
from tests.evidence.builders import ALL, CASE, analysis, error, generation

SALT = bytes(range(32))


def test_worked_out_by_hand() -> None:
    record, sealed = commit(error(), salt=SALT)
    content = b'{"prompt":{"label":"very","text":"How sure is it?"}}'
    assert sealed.content == content
    assert sealed.salt == SALT
    assert sealed.record_id == record["id"]
    assert record["commitment"] == "sha256:" + hashlib.sha256(SALT + content).hexdigest()
    verify_commitment(record["commitment"], salt=SALT, content=content)


def test_content_is_every_member_that_is_left_out() -> None:
    full = analysis()
    record, sealed = commit(full)
    content: dict[str, Any] = json.loads(sealed.content)
    assert content == {
        "generation": {"ranks": [0, 1, 0], "text": "very sure", "token_ids": [5, 9, 4095]},
        "prompt": {"label": "very", "text": "How sure is it?", "token_ids": [1, 2, 3]},
    }
    # Put back together it is what it was.
    again = copy.deepcopy(record) | {"content": "full"}
    del again["commitment"]
    for part, members in content.items():
        again[part] |= members
    assert again == full


FULL = [name for name, record in ALL.items() if record.get("content") == "full" and "id" in record]


@pytest.mark.parametrize("name", FULL)
def test_it_is_the_omitted_record_and_a_commitment(name: str) -> None:
    if ALL[name]["kind"] not in {"analysis", "error"}:
        return
    before = copy.deepcopy(ALL[name])
    record, _ = commit(ALL[name])
    assert ALL[name] == before
    assert record["content"] == "committed"
    rest = {key: value for key, value in record.items() if key not in {"commitment", "content"}}
    forbidden = {"text", "token_ids", "ranks", "label", "response"}
    for part in ("prompt", "generation"):
        assert not forbidden & rest.get(part, {}).keys()
    assert rest.keys() == before.keys() - {"content"}


def test_nothing_of_the_content_is_in_the_line() -> None:
    case = PromptCase("p", "ZEBRA prompt", response="ZEBRA given", label="ZEBRA label")
    for quoted in (case.text, case.response, case.label):
        wrong = AnalysisError("InvalidInput", f"cannot use {quoted!r}", recoverable=False)
        record, sealed = commit(error(case=case, error=wrong))
        assert b"ZEBRA" not in encode_record(record)
        assert record["error"]["message"] == QUOTES_CONTENT
        assert b"ZEBRA given" in sealed.content


def test_a_salt_is_drawn_for_each_record() -> None:
    full = analysis()
    first, second = commit(full), commit(full)
    assert len(first[1].salt) == 32
    assert first[1].salt != second[1].salt
    assert first[0]["commitment"] != second[0]["commitment"]
    assert first[1].content == second[1].content


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.data())
def test_any_flipped_bit_is_found(salt: bytes, content: bytes, data: st.DataObject) -> None:
    commitment = "sha256:" + hashlib.sha256(salt + content).hexdigest()
    verify_commitment(commitment, salt=salt, content=content)
    both = bytearray(salt + content)
    bit = data.draw(st.integers(0, 8 * len(both) - 1))
    both[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofError, match="committed to"):
        verify_commitment(commitment, salt=bytes(both[:32]), content=bytes(both[32:]))


def test_a_byte_cannot_move_between_salt_and_content() -> None:
    commitment = "sha256:" + hashlib.sha256(SALT + b"content").hexdigest()
    for salt, content in ((SALT[:-1], SALT[-1:] + b"content"), (SALT + b"c", b"ontent")):
        with pytest.raises(ProofError, match=f"the salt has {len(salt)} bytes, not 32"):
            verify_commitment(commitment, salt=salt, content=content)


@pytest.mark.parametrize("commitment", ["", "sha256:", "\ud800"])
def test_what_is_no_commitment(commitment: str) -> None:
    with pytest.raises(ProofError):
        verify_commitment(commitment, salt=SALT, content=b"")


@pytest.mark.parametrize("name", ["omitted", "error, omitted", "committed", "refused", "note"])
def test_only_full_content_is_committed_to(name: str) -> None:
    with pytest.raises(ValueError, match="only full content"):
        commit(ALL[name])


def test_salts_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="the salt has 16 bytes"):
        commit(analysis(), salt=bytes(16))


def test_content_that_cannot_be_encoded() -> None:
    with pytest.raises(CanonicalError):
        commit(analysis(case=PromptCase("p", "\ud800")))


def test_content_is_canonical() -> None:
    _, sealed = commit(analysis(case=PromptCase("p", "\U0001f600 \u00e4\n")))
    assert parse_canonical(sealed.content)["prompt"] == {
        "text": "\U0001f600 \u00e4\n",
        "token_ids": [1, 2, 3],
    }


@pytest.mark.parametrize("response", [None, "given"])
@pytest.mark.parametrize("suffix", ["", "-2"])
def test_an_id_that_follows_from_the_prompt_goes_with_it(response: str | None, suffix: str) -> None:
    derived = content_id(CASE.text, response) + suffix
    case = replace(CASE, id=derived, response=response)
    finish = FinishReason.EOS if response is None else FinishReason.SCORED
    made = generation(finish=finish, text="very sure" if response is None else response)
    omitted = analysis(made, case=case, content="omitted")
    assert omitted["prompt"]["id"] == "prompts.txt:7"
    record, sealed = commit(analysis(made, case=case))
    assert record["prompt"]["id"] == "prompts.txt:7"
    assert json.loads(sealed.content)["prompt"]["id"] == derived
    failed = error(case=case, content="omitted")
    assert failed["prompt"]["id"] == "prompts.txt:7"


def test_a_given_id_stays() -> None:
    record, sealed = commit(analysis())
    assert record["prompt"]["id"] == "p-1"
    assert "id" not in json.loads(sealed.content)["prompt"]
    assert (
        analysis(case=replace(CASE, id="185f8db32271fe25"), content="omitted")["prompt"]["id"]
        == "185f8db32271fe25"
    )
