"""Our own decoder against transformers' forward pass, and the folders that it leaves alone."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from model_factory import FAMILIES, build_tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cert.backends.config_values import NotHandledError
from cert.backends.decoder import Decoder
from cert.backends.decoder_config import read_config
from cert.backends.decoder_weights import tensor_names
from cert.backends.folder import inspect_folder
from cert.backends.kv_cache import SlotCache
from cert.backends.loading import load_model
from cert.backends.rotary import Rotary, read_rotary, rotate
from cert.backends.transformers_lm import TransformersLM

if TYPE_CHECKING:
    from pathlib import Path

    from cert.backends.causal_lm import CausalLM

TOLERANCE_NATS = 1e-4
# Two ways of rounding to 8 and 11 bits. Measured on these models: 0.028 and 0.0047 nats at most.
SIXTEEN_BITS_NATS = {torch.bfloat16: 0.1, torch.float16: 0.02}

LENGTHS = (17, 5, 40, 1)
STEPS = 12

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
KINDS: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 500.0},
    {"rope_type": "linear", "factor": 2.0},
    {"type": "linear", "factor": 3},
    {"rope_type": "dynamic", "factor": 2.0},
    LLAMA3,
    YARN,
    {**YARN, "beta_fast": 16, "beta_slow": 2.0, "truncate": False},
    {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7},
    {**YARN, "attention_factor": 1.3},
    {**YARN, "original_max_position_embeddings": None},
]


def build(folder: Path, family: str, **options: Any) -> Path:  # noqa: ANN401 - as the factory has them
    return build_tiny_model(folder / "model", family, **options)


def edit(folder: Path, **values: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def own(folder: Path, dtype: str = "float32") -> Decoder:
    model = load_model(inspect_folder(folder), name="tiny", device="cpu", dtype=dtype).model
    assert isinstance(model, Decoder)
    return model


@torch.inference_mode()
def stepwise(model: CausalLM, texts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Feed each text's beginning in one pass and the rest token by token."""
    starts = [len(text) - STEPS for text in texts]
    cache = SlotCache(model.layers, len(texts), max(map(len, texts)))
    prompts = [text[:start].tolist() for text, start in zip(texts, starts, strict=True)]
    last = torch.tensor(starts) - 1
    found = [model.prefill(prompts, 0, cache)]
    for step in range(STEPS):
        positions = last + 1 + step
        cache.begin_step(positions, int(positions.max()) + 1)
        tokens = torch.stack([text[int(p)] for text, p in zip(texts, positions, strict=True)])
        found.append(model.step(tokens, positions, cache))
    return [torch.stack([logits[row] for logits in found]) for row in range(len(texts))]


@torch.inference_mode()
def parts_of(
    model: CausalLM, texts: list[torch.Tensor], starts: list[int]
) -> tuple[torch.Tensor, ...]:
    """Logits of each text from its start on, all texts in one pass."""
    hidden = model.hidden([text.tolist() for text in texts], starts)
    counts = [len(text) - start for text, start in zip(texts, starts, strict=True)]
    return torch.split(model.head(hidden), counts)


def largest_difference(folder: Path, dtype: torch.dtype = torch.float32) -> float:
    """Of log-probabilities, against transformers: steps in a batch and alone, and scoring so."""
    model = own(folder, str(dtype).removeprefix("torch."))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(300, (length + STEPS,), generator=generator) for length in LENGTHS]
    worst = 0.0
    together = stepwise(model, texts)
    starts = [len(text) // 2 for text in texts]
    later = parts_of(model, texts, starts)
    for text, batched, start, part in zip(texts, together, starts, later, strict=True):
        with torch.inference_mode():
            plain = theirs(input_ids=text[None], use_cache=False).logits[0]
            scored = model.head(model.hidden([text.tolist()], [0]))
        expected = plain.float().log_softmax(-1)
        alone = stepwise(model, [text])[0]
        first = len(text) - STEPS - 1
        for got, want in (
            (scored, expected),
            (part, expected[start:]),
            (batched, expected[first:]),
            (alone, expected[first:]),
        ):
            assert got.dtype is torch.float32
            worst = max(worst, float((got.float().log_softmax(-1) - want).abs().max()))
    return worst


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_every_pass_gives_transformers_log_probabilities(
    family: str, tie_embeddings: bool, tmp_path: Path
) -> None:
    folder = build(tmp_path, family, tie_embeddings=tie_embeddings, seed=3)
    assert largest_difference(folder) < TOLERANCE_NATS


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
@pytest.mark.parametrize("own_decoder", [True, False])
@pytest.mark.parametrize("lengths", [[7, 7, 7], [7, 3, 11]])
def test_a_text_is_scored_from_any_place_on(
    family: str, own_decoder: bool, lengths: list[int], tmp_path: Path
) -> None:
    folder = inspect_folder(build(tmp_path, family, seed=3))
    model = load_model(folder, name="tiny", device="cpu", own_decoder=own_decoder).model
    texts = [torch.arange(1, length + 1) for length in lengths]
    whole = parts_of(model, texts, [0, 0, 0])
    starts = [0, 2, lengths[2] - 1]
    for part, all_of_it, start in zip(parts_of(model, texts, starts), whole, starts, strict=True):
        assert torch.allclose(part, all_of_it[start:], atol=TOLERANCE_NATS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_so_it_does_in_16_bits(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = build(tmp_path, family, dtype="bfloat16", scale=0.1)
    assert largest_difference(folder, dtype) < SIXTEEN_BITS_NATS[dtype]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 16}),
        ("qwen3", {"attention_bias": True}),
        ("gpt2", {"n_inner": None}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("mistral", {"sliding_window": None}),
        ("llama", {"num_key_value_heads": None}),
    ],
)
def test_so_it_does_with_every_option(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    config = {name: value for name, value in options.items() if name != "num_key_value_heads"}
    shape = {"kv_heads": 4} if "num_key_value_heads" in options else {}
    if "n_inner" in options:
        shape, config = {"intermediate_size": 128}, {}
    if "tie_word_embeddings" in options:
        config = {"tie_word_embeddings": False}
    folder = edit(build(tmp_path, family, config=config, **shape), **options)
    assert largest_difference(folder) < TOLERANCE_NATS


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_so_it_does_with_every_kind_of_rotary_embeddings(
    family: str, kind: dict[str, Any], tmp_path: Path
) -> None:
    folder = build(tmp_path, family)
    given = {name: value for name, value in kind.items() if value is not None}
    if "type" in kind:
        edit(folder, rope_parameters=None, rope_scaling=given, rope_theta=1_000.0)
    else:
        edit(folder, rope_parameters={"rope_theta": 10_000.0, **given})
    assert largest_difference(folder) < TOLERANCE_NATS


def test_frequencies_are_transformers_own_to_the_last_bit(tmp_path: Path) -> None:
    folder = build(tmp_path, "llama", hidden_size=256)
    for kind in KINDS:
        given = {name: value for name, value in kind.items() if value is not None}
        edit(folder, rope_parameters={"rope_theta": 10_000.0, **given})
        theirs: Any = AutoModelForCausalLM.from_pretrained(folder).model.rotary_emb
        ours = own(folder).config.rotary
        assert ours is not None
        assert torch.equal(ours.frequencies, theirs.inv_freq)
        assert ours.length == theirs.attention_scaling


def test_a_pair_is_turned_by_its_angle() -> None:
    rotary = Rotary(torch.tensor([math.pi / 2, math.pi / 4]))
    states = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 1, 4)
    turned = rotate(states, *rotary.rotation(torch.tensor([[1]]), torch.float32))
    # (1, 0) by a quarter turn is (0, 1); (0, 1) by an eighth is (-sqrt(1/2), sqrt(1/2)).
    half = math.sqrt(0.5)
    assert turned.flatten().tolist() == pytest.approx([0.0, -half, 1.0, half], abs=1e-6)


def test_gpt2_as_it_lies_on_the_hub(tmp_path: Path) -> None:
    """Without the body's prefix, and with the causal masks of older versions."""
    folder = build(tmp_path, "gpt2")
    path = folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 256, 256).tril()
    save_file(tensors, path, metadata={"format": "pt"})
    edit(folder, n_ctx=256, task_specific_params={"text-generation": {"max_length": 50}})
    assert largest_difference(folder) < TOLERANCE_NATS


@pytest.mark.parametrize(
    ("family", "config", "window"),
    [
        ("mistral", {"sliding_window": 16}, 16),
        ("mistral", {"sliding_window": None}, None),
        ("llama", {}, None),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 8}, None),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, 8),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, None),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, 8),
    ],
)
def test_the_window_is_the_one_that_is_read_from_transformers(
    family: str, config: dict[str, Any], window: int | None, tmp_path: Path
) -> None:
    folder = build(tmp_path, family, config=config)
    assert own(folder).window == window
    kinds = json.loads((folder / "config.json").read_text()).get("layer_types")
    if kinds is not None:
        edit(folder, layer_types=None)
        assert own(folder).window == window
    theirs = load_model(inspect_folder(folder), name="tiny", device="cpu", own_decoder=False)
    assert theirs.model.window == window


# --- folders that are left to transformers


@pytest.mark.parametrize(
    ("family", "values", "named"),
    [
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope_type"),
        ("llama", {"rope_parameters": {"rope_type": ["yarn"]}}, "rope_type"),
        ("llama", {"rope_parameters": {"rope_type": "default", "factor": 2.0}}, "factor"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "factor"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": True}}, "factor"),
        ("llama", {"rope_parameters": {**LLAMA3, "high_freq_factor": 1}}, "high_freq_factor"),
        ("llama", {"rope_parameters": {**YARN, "truncate": 1}}, "truncate"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "full_attention"),
        ("llama", {"rope_parameters": ["default"]}, "another form"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "beside"),
        ("llama", {"rope_parameters": {"rope_theta": math.inf}}, "rope_theta"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"head_dim": 9}, "another form"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"layer_types": ["full_attention"] * 2}, "layer_types"),
        ("llama", {"num_hidden_layers": "2"}, "num_hidden_layers"),
        ("llama", {"num_hidden_layers": 3}, "tensors"),
        ("llama", {"num_attention_heads": 0}, "num_attention_heads"),
        ("llama", {"num_attention_heads": 3}, "num_attention_heads"),
        ("llama", {"rms_norm_eps": None}, "rms_norm_eps"),
        ("llama", {"tie_word_embeddings": True}, "tensors"),
        ("llama", {"tie_word_embeddings": 0}, "tie_word_embeddings"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "llama"),
        ("llama", {"model_type": "granite", "architectures": None}, "granite"),
        ("llama", {"an_unknown_field": None}, "an_unknown_field"),
        ("qwen2", {"head_dim": None}, "head_dim"),
        ("qwen2", {"num_key_value_heads": None}, "num_key_value_heads"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen2", {"layer_types": ["full_attention", "other"]}, "layer_types"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("qwen3", {"head_dim": None}, "head_dim"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"n_head": 5}, "n_head"),
    ],
)
def test_a_configuration_that_is_not_known_to_the_last_field_is_left_alone(
    family: str, values: dict[str, object], named: str, tmp_path: Path
) -> None:
    folder = inspect_folder(edit(build(tmp_path, family), **values))
    with pytest.raises(NotHandledError, match=named):
        tensor_names(folder, read_config(folder))


def test_a_mistral_without_the_field_has_the_window_of_transformers(tmp_path: Path) -> None:
    folder = build(tmp_path, "mistral")
    config = json.loads((folder / "config.json").read_text())
    del config["sliding_window"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_model(inspect_folder(folder), name="tiny", device="cpu")
    assert isinstance(loaded.model, TransformersLM)
    assert loaded.model.window == 4096


def test_what_is_left_alone_runs_through_transformers(tmp_path: Path) -> None:
    folder = edit(build(tmp_path, "llama"), hidden_act="gelu")
    loaded = load_model(inspect_folder(folder), name="tiny", device="cpu")
    assert isinstance(loaded.model, TransformersLM)
    assert loaded.identity.attention == "sdpa"
    assert "transformers" in loaded.identity.versions


def test_weights_that_are_no_floating_point_numbers_are_left_alone(tmp_path: Path) -> None:
    folder = build(tmp_path, "llama")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int32)
    save_file(tensors, path, metadata={"format": "pt"})
    found = inspect_folder(folder)
    with pytest.raises(NotHandledError, match="dtype"):
        tensor_names(found, read_config(found))


def test_without_any_field_positions_turn_with_the_usual_base() -> None:
    assert torch.equal(
        read_rotary({}, 8, 64).frequencies,
        read_rotary({"rope_theta": 10_000}, 8, 64).frequencies,
    )


def test_a_model_on_the_cpu_stays_there(tmp_path: Path) -> None:
    model = own(build(tmp_path, "gpt2"))
    model.to_cpu()
    assert model.device.type == "cpu"
    copied = model.vocab_size * model.config.hidden_size  # the tied head, laid out
    # The few biases of laid out layers are not counted.
    assert 0.98 < model.nbytes() / 4 / (model.parameter_count + copied) <= 1.0
