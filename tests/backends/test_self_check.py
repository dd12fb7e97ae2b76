"""Families beyond the contract's: run right where the loop can, refused where it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from cert.backends.protocol import ModelIdentity
from cert.backends.self_check import largest_deviation, self_check
from cert.backends.transformers_lm import TransformersLM, split_head
from cert.core.errors import ModelRefusedError

SMALL: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def tiny(name: str, **options: object) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config_class = getattr(transformers, f"{name}Config")
    model_class = getattr(transformers, f"{name}ForCausalLM")
    model = model_class(config_class(**options)).eval().requires_grad_(requires_grad=False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.3)
    return model


def identity(vocab_size: int = 120, dtype: str = "float32") -> ModelIdentity:
    return ModelIdentity(
        "tiny", "d", "t", {}, "A", dtype, "cpu", None, "sdpa", vocab_size, 64, 1, {}
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Granite", {"logits_scaling": 7.0, "residual_multiplier": 0.5}),
        ("Cohere", {"logit_scale": 0.25}),
        ("Phi3", {}),
        ("Gemma2", {"final_logit_softcapping": 5.0, "attn_implementation": "eager"}),
        ("Olmo2", {}),
    ],
)
def test_a_family_that_the_loop_runs_right_is_accepted(name: str, options: dict[str, Any]) -> None:
    model = TransformersLM(tiny(name, **SMALL, **options))
    assert largest_deviation(model, 120) < 1e-4
    self_check(model, identity())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Granite", {"logits_scaling": 7.0}),
        ("Cohere", {"logit_scale": 0.25}),
        ("Gemma2", {"final_logit_softcapping": 5.0}),
    ],
)
def test_the_head_scales_and_caps_as_the_model_does(name: str, options: dict[str, Any]) -> None:
    model = tiny(name, **SMALL, **options, attn_implementation="eager")
    ids = torch.tensor([[5, 9, 2, 7]])
    hidden = model.base_model(input_ids=ids).last_hidden_state
    ours = TransformersLM(model).head(hidden[0])
    assert torch.allclose(ours, model(input_ids=ids).logits[0], atol=1e-6)
    bare = model.get_output_embeddings()(hidden[0])
    assert not torch.allclose(ours, bare, atol=1e-3), "the bare projection would have been wrong"


def test_a_state_space_model_is_refused() -> None:
    options = {k: SMALL[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers")}
    model = tiny("Mamba", **options, state_size=4)
    with pytest.raises(ModelRefusedError, match="mamba"):
        self_check(TransformersLM(model), identity())


def test_a_step_that_is_off_by_one_place_is_refused() -> None:
    model = TransformersLM(tiny("Granite", **SMALL))
    step = model.step
    model.step = lambda ids, positions, cache: step(ids, positions - 1, cache)  # type: ignore[method-assign]
    with pytest.raises(ModelRefusedError, match="differs from the model's own forward pass"):
        self_check(model, identity())


def test_a_verified_family_is_not_run_at_loading() -> None:
    model = TransformersLM(tiny("Llama", **SMALL))
    model.prefill = None  # type: ignore[assignment, method-assign]
    self_check(model, identity())


def test_a_model_without_a_body_is_refused() -> None:
    model = tiny("Llama", **SMALL)
    model.base_model_prefix = "trunk"
    with pytest.raises(ModelRefusedError, match="no body called 'trunk'"):
        split_head(model)


def test_texts_stay_within_the_attention_window() -> None:
    assert TransformersLM(tiny("Mistral", **SMALL, sliding_window=16)).window == 16
    assert TransformersLM(tiny("Mistral", **SMALL, sliding_window=None)).window is None
    assert TransformersLM(tiny("Llama", **SMALL)).window is None
    assert TransformersLM(tiny("Qwen2", **SMALL, use_sliding_window=False)).window is None
    windowed = tiny(
        "Qwen2", **SMALL, use_sliding_window=True, sliding_window=8, max_window_layers=1
    )
    assert TransformersLM(windowed).window == 8
