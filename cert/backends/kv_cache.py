"""Keys and values of many running texts, in slots of one tensor a layer.

Rows 0 to n-1 of the slots are the running texts. Each row has a length of its own; what lies
behind it is garbage that the attention mask hides and later tokens overwrite. A retired row is
filled with the last one, so that a step always works on one dense block.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_FIRST_CAPACITY = 64


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, shape (slots, key-value heads, capacity, head size)."""

    is_croppable = False

    def __init__(self, plan: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._plan = plan
        self._stored: list[torch.Tensor] = []

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots, capacity = self._plan.slots, self._plan.capacity
        self._stored = [
            states.new_zeros((slots, states.shape[1], capacity, states.shape[3]))
            for states in (key_states, value_states)
        ]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_kw: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values where the plan says; return what to attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan = self._plan
        keys, values = self._stored
        rows = key_states.shape[0]
        if plan.prefill_from is not None:
            first, length = plan.prefill_from, key_states.shape[2]
            keys[first : first + rows, :, :length] = key_states
            values[first : first + rows, :, :length] = value_states
            return key_states, value_states
        keys[plan.rows, :, plan.positions] = key_states[:, :, 0]
        values[plan.rows, :, plan.positions] = value_states[:, :, 0]
        return keys[:rows, :, : plan.width], values[:rows, :, : plan.width]

    def resize(self, capacity: int) -> None:
        for place, old in enumerate(self._stored):
            new = old.new_zeros((*old.shape[:2], capacity, old.shape[3]))
            new[:, :, : old.shape[2]] = old
            self._stored[place] = new

    def move(self, source: int, target: int, length: int) -> None:
        for tensor in self._stored:
            tensor[target, :, :length] = tensor[source, :, :length]

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._stored)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (query_length, 0) if self._plan.prefill_from is not None else (self._plan.width, 0)

    def get_seq_length(self) -> int:
        return 0 if self._plan.prefill_from is not None else self._plan.width - 1

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """What a model's forward pass sees as its cache.

    Say where the next forward pass stands with `begin_prefill` or `begin_step`, then run it.
    Capacity doubles as texts grow, up to `limit`; memory follows the longest running text.
    """

    def __init__(self, layers: int, slots: int, limit: int) -> None:
        """Make an empty cache; nothing is allocated before the first forward pass.

        Args:
            layers: Number of attention layers.
            slots: Rows at most.
            limit: Tokens of the longest text at most.
        """
        self.slots = slots
        self.limit = limit
        self.capacity = min(limit, _FIRST_CAPACITY)
        self.prefill_from: int | None = 0
        self.rows = torch.empty(0, dtype=torch.int64)
        self.positions = torch.empty(0, dtype=torch.int64)
        self.width = 0
        self._layers = [_SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self._layers))

    def begin_prefill(self, first_slot: int, length: int) -> None:
        """The next pass feeds whole prompts, right-padded to `length`, into slots from there on."""
        self._reserve(length)
        self.prefill_from = first_slot

    def begin_step(self, positions: torch.Tensor, width: int) -> None:
        """The next pass feeds one token a row.

        Args:
            positions: Where each row's token stands, int64, shape (rows,).
            width: Largest position plus one.
        """
        self._reserve(width)
        self.prefill_from = None
        self.rows = torch.arange(len(positions), device=positions.device)
        self.positions = positions
        self.width = width

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` tokens over another row."""
        for layer in self._layers:
            layer.move(source, target, length)

    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(layer.nbytes() for layer in self._layers)

    def _reserve(self, length: int) -> None:
        if length > self.capacity:
            self.capacity = min(self.limit, max(length, 2 * self.capacity))
            for layer in self._layers:
                layer.resize(self.capacity)
