"""A transformers causal language model, split into body and head.

The body turns tokens into hidden states; the head turns a few chosen hidden states into logits. So
logits are computed only where they are needed, with exactly the arithmetic of the model's own
forward pass (scaling and soft-capping of logits included, which a call of `lm_head` would miss).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from cert.core.errors import ModelRefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from cert.backends.kv_cache import SlotCache

VERIFIED_FAMILIES = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3"})
"""Model types whose agreement with transformers' forward pass the contract tests show."""

SELF_CHECK_TOLERANCE_NATS = 5e-3
"""Largest allowed difference of log-probabilities in the self-check of other families, float32."""


class _BodyOutput:
    """A body's output of which only the last hidden states exist; the rest is None."""

    def __init__(self, last_hidden_state: torch.Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    def __getitem__(self, place: int) -> torch.Tensor | None:
        return self.last_hidden_state if place == 0 else None

    def __getattr__(self, _name: str) -> None:
        return None


class _GivenHiddenStates(torch.nn.Module):
    """Stands in the body's place and hands on the hidden states it is given."""

    def forward(
        self, *_args: object, inputs_embeds: torch.Tensor, **_kwargs: object
    ) -> _BodyOutput:
        return _BodyOutput(inputs_embeds)


def split_head(model: PreTrainedModel) -> PreTrainedModel:
    """Make a view of the model whose forward pass starts at the last hidden states.

    The view shares every weight with the model.

    Raises:
        ModelRefusedError: The model has no separate body.
    """
    prefix = model.base_model_prefix
    if prefix not in model._modules:  # noqa: SLF001 - the only way to look without __getattr__
        message = f"{type(model).__name__} has no body called {prefix!r}: it cannot be run here"
        raise ModelRefusedError(message)
    head = copy.copy(model)
    modules = dict(model._modules)  # noqa: SLF001
    modules[prefix] = _GivenHiddenStates()
    head.__dict__["_modules"] = modules
    return head


class CausalLM:
    """The forward passes that the decode loop and the scorer are made of."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap a loaded model; it must be in evaluation mode."""
        self.model = model
        self.config = model.config.get_text_config()
        self._body = model.base_model
        self._head = split_head(model)
        self._additive_mask = model.config._attn_implementation == "eager"  # noqa: SLF001

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def layers(self) -> int:
        """Number of layers that keep keys and values."""
        return int(self.config.num_hidden_layers)

    @property
    def window(self) -> int | None:
        """The narrowest attention window, where the model has one that it uses.

        Texts are kept within it; inside the window, windowed and full attention are the same.
        """
        if getattr(self.config, "use_sliding_window", True) is False:
            return None
        width = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None)
        if width is None or (kinds is not None and "sliding_attention" not in kinds):
            return None
        return int(width)

    def prefill(self, ids: torch.Tensor, last: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """Feed right-padded prompts; logits after each prompt's last token.

        Padding comes after the prompt, and attention only looks back, so it needs no mask.

        Args:
            ids: Token ids, shape (rows, length).
            last: Index of each prompt's last token, shape (rows,).
            cache: Told by `begin_prefill` where the rows go.

        Returns:
            Shape (rows, V).
        """
        hidden = self.hidden(ids, cache)
        return self.head(hidden[torch.arange(len(last), device=last.device), last])

    def step(self, ids: torch.Tensor, positions: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """Feed one token a row; logits after it.

        Args:
            ids: Token ids, shape (rows,).
            positions: Where each stands in its text, shape (rows,).
            cache: Told by `begin_step` the same positions.

        Returns:
            Shape (rows, V).
        """
        places = torch.arange(cache.width, device=ids.device)
        visible = (places[None, :] <= positions[:, None])[:, None, None, :]
        if self._additive_mask:
            dtype = self.model.dtype
            hidden_value = torch.finfo(dtype).min
            visible = torch.zeros(visible.shape, dtype=dtype, device=ids.device).masked_fill_(
                ~visible, hidden_value
            )
        output = self._body(
            input_ids=ids[:, None],
            position_ids=positions[:, None],
            attention_mask=visible,
            past_key_values=cache,
            use_cache=True,
        )
        return self.head(output.last_hidden_state[:, 0])

    def hidden(self, ids: torch.Tensor, cache: SlotCache | None = None) -> torch.Tensor:
        """Last hidden states of whole, right-padded texts; shape (rows, length, hidden size)."""
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        options: dict[str, Any] = {"use_cache": False}
        if cache is not None:
            options = {"use_cache": True, "past_key_values": cache}
        output = self._body(input_ids=ids, position_ids=positions, **options)
        states: torch.Tensor = output.last_hidden_state
        return states

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of chosen hidden states: (rows, hidden size) to (rows, V)."""
        logits: torch.Tensor = self._head(inputs_embeds=hidden[:, None], use_cache=False).logits
        return logits[:, 0]
