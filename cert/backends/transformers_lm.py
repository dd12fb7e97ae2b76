"""A transformers causal language model, split into body and head.

Logits are computed with exactly the arithmetic of the model's own forward pass (scaling and
soft-capping of logits included, which a call of `lm_head` would miss).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from cert.backends.causal_lm import UNLIMITED_CONTEXT_TOKENS
from cert.backends.padding import pad, unpad
from cert.backends.quantize import built_bytes
from cert.core.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from cert.backends.kv_cache import SlotCache


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


class _LayerView(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer of a `SlotCache` as a model's forward pass sees it."""

    is_croppable = False

    def __init__(self, slots: SlotCache, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots
        self._layer = layer
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is left to do: the slots allocate what they need."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_kw: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._slots.width:
            self._slots.store_texts(self._layer, 0, key_states, value_states)
            return key_states, value_states
        return self._slots.store_step(self._layer, key_states[:, :, 0], value_states[:, :, 0])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self._slots.width or query_length, 0)

    def get_seq_length(self) -> int:
        return self._slots.width - 1 if self._slots.width else 0

    def get_max_length(self) -> int:
        return -1


def _view(slots: SlotCache) -> Cache:
    return Cache(layers=[_LayerView(slots, layer) for layer in range(slots.layers)])


class TransformersLM:
    """A loaded model of transformers; implements `CausalLM`."""

    def __init__(self, model: PreTrainedModel, *, parameters: int | None = None) -> None:
        """Wrap a loaded model.

        Args:
            model: In evaluation mode.
            parameters: Their number before layers were replaced, which hides them; counted if not
                given.
        """
        self.model = model
        self.parameter_count = model.num_parameters() if parameters is None else parameters
        self.config = model.config.get_text_config()
        self._body = model.base_model
        self._head = split_head(model)
        self._additive_mask = self.attention == "eager"

    @property
    def family(self) -> str:
        """The configuration's model type."""
        return str(self.config.model_type)

    @property
    def architecture(self) -> str:
        """The class of transformers."""
        return type(self.model).__name__

    @property
    def attention(self) -> str:
        """As transformers calls it."""
        return str(self.model.config._attn_implementation)  # noqa: SLF001 - it has no other name

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def layers(self) -> int:
        """Number of layers that keep keys and values."""
        return int(self.config.num_hidden_layers)

    @property
    def vocab_size(self) -> int:
        """V, the number of logits."""
        head: Any = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        return int(head.out_features)

    @property
    def max_context_tokens(self) -> int:
        """Prompt and output together, as far as the configuration says."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else UNLIMITED_CONTEXT_TOKENS

    @property
    def window(self) -> int | None:
        """The narrowest attention window, where the model has one that it uses."""
        if getattr(self.config, "use_sliding_window", True) is False:
            return None
        width = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None)
        if width is None or (kinds is not None and "sliding_attention" not in kinds):
            return None
        return int(width)

    @property
    def has_fixed_steps(self) -> bool:
        """It makes masks and decisions of its own."""
        return False

    def prefill(
        self, texts: Sequence[Sequence[int]], first_slot: int, cache: SlotCache
    ) -> torch.Tensor:
        """See `CausalLM.prefill`."""
        lengths = [len(text) for text in texts]
        cache.begin_prefill(first_slot, max(lengths))
        hidden = self._hidden(pad(texts, self.device), use_cache=True, past_key_values=_view(cache))
        return self.head(unpad(hidden, lengths, [length - 1 for length in lengths]))

    def step(self, ids: torch.Tensor, positions: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        """See `CausalLM.step`."""
        visible = cache.visible()[:, None, None, :]
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
            past_key_values=_view(cache),
            use_cache=True,
        )
        return self.head(output.last_hidden_state[:, 0])

    def hidden(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> torch.Tensor:
        """See `CausalLM.hidden`."""
        states = self._hidden(pad(texts, self.device), use_cache=False)
        return unpad(states, [len(text) for text in texts], starts)

    def _hidden(self, ids: torch.Tensor, **options: object) -> torch.Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        output = self._body(input_ids=ids, position_ids=positions, **options)
        states: torch.Tensor = output.last_hidden_state
        return states

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `CausalLM.head`."""
        logits: torch.Tensor = self._head(inputs_embeds=hidden[:, None], use_cache=False).logits
        return logits[:, 0]

    def nbytes(self) -> int:
        """Bytes of weights and buffers, quantized ones included."""
        model = self.model
        weights = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
        return sum(weights.values()) + built_bytes(model)

    def to_cpu(self) -> None:
        """Move the weights to the CPU."""
        self.model.to("cpu")  # type: ignore[arg-type]
