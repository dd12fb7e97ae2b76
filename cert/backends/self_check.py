"""A model of an untested family must show that the decode loop runs it right, before it measures.

The loop gives positions, masks and a cache of its own to a model's forward pass. Families that the
contract tests cover are known to take them; of any other one, two short texts are run both ways
once at loading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cert.backends.causal_lm import CONTRACT_FAMILIES
from cert.backends.kv_cache import SlotCache
from cert.core.errors import ModelRefusedError

if TYPE_CHECKING:
    from cert.backends.protocol import ModelIdentity
    from cert.backends.transformers_lm import TransformersLM

SELF_CHECK_TOLERANCE_NATS = 5e-3
"""Largest allowed difference of log-probabilities in float32."""

_LENGTHS = (5, 3)
_STEPS = 3
_RELAXED_TOLERANCE_NATS = 0.25
"""For 16-bit and quantized weights, where the two ways round differently."""


@torch.inference_mode()
def largest_deviation(model: TransformersLM, vocab_size: int) -> float:
    """Run two texts of unequal length through the loop's passes and through the plain one.

    Returns:
        The largest difference of log-probabilities, in nats.
    """
    device = model.device
    generator = torch.Generator().manual_seed(0)
    texts = [
        torch.randint(vocab_size, (length + _STEPS,), generator=generator).to(device)
        for length in _LENGTHS
    ]
    cache = SlotCache(model.layers, len(texts), max(_LENGTHS) + _STEPS)
    prompts = [text[:length].tolist() for text, length in zip(texts, _LENGTHS, strict=True)]
    last = torch.tensor([length - 1 for length in _LENGTHS], device=device)
    looped = [model.prefill(prompts, 0, cache)]
    for step in range(_STEPS):
        positions = last + 1 + step
        cache.begin_step(positions, int(positions.max()) + 1)
        tokens = torch.stack([texts[row][int(p)] for row, p in enumerate(positions)])
        looped.append(model.step(tokens, positions, cache))
    worst = 0.0
    for row, length in enumerate(_LENGTHS):
        plain = model.model(input_ids=texts[row][None], use_cache=False).logits[0]
        ours = torch.stack([logits[row] for logits in looped])
        theirs = plain[length - 1 : length + _STEPS]
        difference = ours.float().log_softmax(-1) - theirs.float().log_softmax(-1)
        worst = max(worst, float(difference.nan_to_num(nan=torch.inf).abs().max()))
    return worst


def self_check(model: TransformersLM, identity: ModelIdentity) -> None:
    """Refuse a model of an untested family that the loop would measure wrongly.

    Raises:
        ModelRefusedError: The two ways differ, or the loop cannot run the model at all.
    """
    family = model.family
    if family in CONTRACT_FAMILIES:
        return
    exact = identity.dtype in {"float32", "float64"} and identity.quantization is None
    tolerance = SELF_CHECK_TOLERANCE_NATS if exact else _RELAXED_TOLERANCE_NATS
    try:
        deviation = largest_deviation(model, identity.vocab_size)
    except Exception as error:
        message = f"models of type {family!r} cannot be run by this version: {error}"[:500]
        raise ModelRefusedError(message) from error
    if not deviation <= tolerance:
        message = (
            f"models of type {family!r} cannot be measured by this version: its decode loop "
            f"differs from the model's own forward pass by {deviation:.3g} nats "
            f"(allowed: {tolerance:g})"
        )
        raise ModelRefusedError(message)
