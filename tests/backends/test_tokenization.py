"""Token ids are those of transformers' AutoTokenizer, whichever way the tokenizer was read."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from model_factory import FAMILIES, build_tiny_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from cert.backends import tokenizer_files
from cert.backends.folder import inspect_folder
from cert.backends.manifest import hash_files, manifest_digest
from cert.backends.tokenization import Tokenization, load_tokenization
from cert.backends.tokenizer_files import read_tokenizer
from cert.core.errors import ConfigurationError, InvalidInput, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXTS = [
    "Hello world",
    " leading and  double  spaces ",
    "1234 + 5678 = 6912, isn't it?",
    "line\n\nline\r\n\ttab\v",
    "naïve café e\u0301 日本語 🙂\u200d",
    "<|endoftext|> <s> </s> <|begin_of_text|>x<|eot_id|> [INST]<|im_end|>\n",
    "\0 nul and \x7f",
    "a",
]


def edit(path: Path, **values: object) -> None:
    document = json.loads(path.read_text()) if path.exists() else {}
    document.update(values)
    path.write_text(json.dumps(document))


def settings(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "tokenizer_config.json", **values)


def config(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **values)


def token(content: str, **flags: bool) -> dict[str, object]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": content, **plain, "special": True, **flags}


def decoder_as_in_the_file(folder: Path) -> None:
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    edit(
        folder / "tokenizer_config.json",
        added_tokens_decoder={str(entry.pop("id")): entry for entry in added},
    )


def decoder_of_one(folder: Path) -> None:
    decoder = {"0": token("<|endoftext|>")}
    edit(folder / "tokenizer_config.json", added_tokens_decoder=decoder)


def with_metaspace(folder: Path) -> None:
    """A tokenizer in the manner of Llama 2."""
    words = ["▁", "H", "e", "l", "o", "▁w", "or", "ld", "r", "d", "w", "a", "<0x0A>"]
    vocabulary = {text: number for number, text in enumerate(["<unk>", "<s>", "</s>", *words])}
    merges = [("▁", "w"), ("o", "r"), ("l", "d")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="LlamaTokenizer",
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
    )


def with_gpt2_splitting(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))


def with_truncation(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))


def with_padding(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=40)
    tokenizer.save(str(folder / "tokenizer.json"))


def with_an_ordinary_added_token(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("world", special=False, normalized=True)])
    tokenizer.save(str(folder / "tokenizer.json"))


def without_settings(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()


def as_vocabulary_and_merges(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(document["vocab"]))
    merges = [" ".join(pair) for pair in document["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def special_tokens_map(folder: Path) -> None:
    edit(folder / "special_tokens_map.json", eos_token="<|eot_id|>", pad_token=token("[PAD]"))  # noqa: S106


def special_tokens_map_of_known(folder: Path) -> None:
    edit(folder / "special_tokens_map.json", eos_token="<|eot_id|>")  # noqa: S106


def added_tokens_file(folder: Path) -> None:
    edit(folder / "added_tokens.json", **{"<new>": 300})


# family, what is changed, whether it is read without transformers
VARIANTS: list[tuple[str, Callable[[Path], None], bool]] = [
    *((family, settings(), True) for family in FAMILIES),
    ("llama", settings(tokenizer_class=None), True),
    ("llama", settings(tokenizer_class="LlamaTokenizerFast"), True),
    ("llama", without_settings, True),
    ("llama", with_metaspace, False),
    ("llama", settings(tokenizer_class="GPT2Tokenizer"), False),
    ("llama", decoder_as_in_the_file, True),
    ("llama", settings(added_tokens_decoder={"0": token("<|begin_of_text|>", lstrip=True)}), False),
    ("llama", special_tokens_map, False),
    ("llama", special_tokens_map_of_known, True),
    ("llama", settings(additional_special_tokens=["<|eot_id|>"]), True),
    ("llama", settings(additional_special_tokens=["<|new|>", "<x>"]), False),
    ("llama", settings(extra_special_tokens={"image_token": "<|eot_id|>"}), False),
    ("llama", settings(image_token="<|eot_id|>"), False),  # noqa: S106
    ("llama", settings(eos_token={"__type": "AddedToken", **token("<|eot_id|>")}), True),
    ("llama", settings(eos_token=None), True),
    ("llama", settings(pad_token="the"), False),  # noqa: S106
    ("llama", settings(split_special_tokens=True), False),
    ("llama", settings(add_bos_token=False, add_eos_token=True), True),
    ("llama", with_truncation, True),
    ("llama", with_padding, False),
    ("llama", with_an_ordinary_added_token, True),
    ("llama", added_tokens_file, False),
    ("mistral", settings(tokenizer_class="LlamaTokenizer"), True),
    ("mistral", with_metaspace, True),
    ("mistral", lambda folder: edit(folder / "tekken.json"), False),
    ("qwen2", settings(tokenizer_class="PreTrainedTokenizerFast"), True),
    ("qwen2", with_gpt2_splitting, False),
    ("qwen2", decoder_as_in_the_file, True),
    ("qwen2", decoder_of_one, False),
    ("qwen2", settings(bos_token=None, unk_token=None, pad_token="<|endoftext|>"), True),  # noqa: S106
    ("qwen2", with_an_ordinary_added_token, True),
    ("qwen3", with_gpt2_splitting, False),
    ("qwen3", settings(tokenizer_class="TokenizersBackend"), True),
    ("qwen3", settings(tokenizer_class="GPT2Tokenizer"), False),
    ("gpt2", without_settings, True),
    ("gpt2", settings(tokenizer_class="PreTrainedTokenizerFast"), True),
    ("gpt2", settings(add_prefix_space=True), False),
    ("gpt2", settings(add_bos_token=True), True),
    ("gpt2", decoder_as_in_the_file, True),
    ("gpt2", as_vocabulary_and_merges, False),
    ("gpt2", config(model_type="gpt_neox"), False),
]


@pytest.mark.parametrize(("family", "change", "direct"), VARIANTS)
def test_ids_and_special_tokens_are_those_of_transformers(
    family: str,
    change: Callable[[Path], None],
    direct: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import AutoTokenizer

    folder = build_tiny_model(tmp_path / "model", family)
    change(folder)
    theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    found = inspect_folder(folder)
    if direct:
        monkeypatch.delattr(tokenizer_files, "_read_with_transformers")
    else:
        assert tokenizer_files._read_directly(found, tokenizer_files._settings(found)) is None
    parts = read_tokenizer(found)
    ours = Tokenization(
        parts.tokenizer, template=None, eos_token_ids=(), vocab_size=10**6, files={}
    )
    drawn = random.Random(0)
    texts = [*TEXTS, *("".join(drawn.choices("ab 19\n.'é<|>Tst", k=40)) for _ in range(20))]
    for text in texts:
        assert ours.encode_prompt(text) == theirs(text).input_ids
        without = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode_response(text) == without
        assert ours.decode(without) == theirs.decode(
            without, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    assert parts.special_tokens == theirs.special_tokens_map


def load(folder: Path, vocab_size: int = 300) -> Tokenization:
    found = inspect_folder(folder)
    files = hash_files(folder, found.tokenizer_files)
    return load_tokenization(found, vocab_size=vocab_size, files=files)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tokenization:
    return load(build_tiny_model(tmp_path_factory.mktemp("llama") / "model", "llama"))


def test_llama_puts_its_first_token_before_prompts_and_not_before_responses(
    llama: Tokenization,
) -> None:
    assert llama.encode_prompt("the", chat="never")[0] == 0
    assert llama.encode_prompt("the")[1:] == llama.encode_response("the")
    assert llama.encode_response("") == []


def test_gpt2_puts_nothing_before(tmp_path: Path) -> None:
    tokenization = load(build_tiny_model(tmp_path / "model", "gpt2"))
    assert tokenization.encode_prompt("the") == tokenization.encode_response("the")


def test_decoding_leaves_special_tokens_out_and_cleans_nothing_up(llama: Tokenization) -> None:
    text = "Hello , world ! do n't"
    ids = llama.encode_prompt(text)
    assert llama.decode(ids) == text
    assert llama.decode([*ids, 1, 4]) == text
    assert llama.decode([]) == ""


def test_half_a_character_becomes_the_replacement_character(llama: Tokenization) -> None:
    ids = llama.encode_response("🙂")
    assert len(ids) == 4
    assert llama.decode(ids[:3]) == "\ufffd"
    assert llama.decode(ids) == "🙂"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_lone_surrogates_are_invalid_input(text: str, llama: Tokenization) -> None:
    with pytest.raises(InvalidInput, match="not valid Unicode"):
        llama.encode_prompt(text)
    with pytest.raises(InvalidInput, match="not valid Unicode"):
        llama.encode_response(text)


def test_a_token_without_an_embedding_is_invalid_input(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|beyond|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenization = load(folder)
    with pytest.raises(InvalidInput, match=r"holds '<\|beyond\|>'"):
        tokenization.encode_prompt("x<|beyond|>")
    assert tokenization.encode_prompt("x")


def test_a_pattern_that_backtracks_for_ever_ends_with_the_text(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$"), behavior="isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenization = load(folder)
    with pytest.raises(InvalidInput, match="tokenizer gave up on the text: PanicException"):
        tokenization.encode_prompt("a" * 200 + "b")
    assert tokenization.encode_prompt("b")


def test_only_panics_are_turned_into_errors() -> None:
    with pytest.raises(KeyboardInterrupt), tokenizer_files.panics_as_errors():
        raise KeyboardInterrupt


def test_other_words_for_chat_are_a_configuration_error(llama: Tokenization) -> None:
    with pytest.raises(ConfigurationError, match="auto, always, never"):
        llama.encode_prompt("x", chat="sometimes")


def test_always_needs_a_template(llama: Tokenization) -> None:
    assert not llama.has_chat_template
    with pytest.raises(ConfigurationError, match="has no chat template"):
        llama.encode_prompt("x", chat="always")


@pytest.mark.parametrize(
    ("in_config", "in_generation", "in_tokenizer", "expected"),
    [
        (1, None, None, {1}),
        ([1, 4], None, None, {1, 4}),
        (None, [4, 2], "<|end_of_text|>", {1, 2, 4}),
        (None, None, None, set()),
        (-1, 300, "<|eot_id|>", {4}),
        (True, "4", None, set()),
        ([1, None, 2.0], None, None, {1}),
    ],
)
def test_the_ends_of_all_files_count(
    in_config: object,
    in_generation: object,
    in_tokenizer: str | None,
    expected: set[int],
    tmp_path: Path,
) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    edit(folder / "config.json", eos_token_id=in_config)
    edit(folder / "generation_config.json", eos_token_id=in_generation)
    edit(folder / "tokenizer_config.json", eos_token=in_tokenizer)
    assert load(folder).eos_token_ids == expected


def test_the_digest_covers_the_tokenizers_files(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    tokenization = load(folder)
    assert set(tokenization.files) == {"tokenizer.json", "tokenizer_config.json"}
    assert tokenization.digest == manifest_digest(tokenization.files)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load(folder).digest != tokenization.digest


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"model": {}}', '{"version": "1.0"}', "null", '"x"', "[" * 10_000]
)
def test_a_tokenizer_json_that_is_none(content: str, tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelUnavailableError, match="makes no tokenizer"):
        load(folder)


def test_a_vocabulary_that_transformers_cannot_read(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ModelUnavailableError, match="transformers makes no tokenizer") as caught:
        load(folder)
    assert caught.value.hint is not None
    assert "tokenizer.json" in caught.value.hint


def test_threads_get_the_same_ids(llama: Tokenization) -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"text {number} of many" for number in range(200)]
    alone = [llama.encode_prompt(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together: list[Any] = list(pool.map(llama.encode_prompt, texts))
    assert together == alone
