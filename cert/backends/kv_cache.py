"""Keys and values of many running texts, in slots of one tensor a layer.

Rows 0 to n-1 of the slots are the running texts. Each row has a length of its own; what lies
behind it is garbage that the attention mask hides and later tokens overwrite. A retired row is
filled with the last one, so that a step always works on one dense block.
"""

from __future__ import annotations

import torch

_FIRST_CAPACITY = 64


class SlotCache:
    """Where a model's forward pass keeps keys and values, and finds the earlier ones.

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
        self.layers = layers
        self.slots = slots
        self.limit = limit
        self.capacity = min(limit, _FIRST_CAPACITY)
        self.prefill_from: int | None = 0
        self.rows = torch.empty(0, dtype=torch.int64)
        self.positions = torch.empty(0, dtype=torch.int64)
        self.width = 0
        # By layer: keys and values, each (slots, key-value heads, capacity, head size).
        self._stored: list[list[torch.Tensor]] = [[] for _ in range(layers)]

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

    def store(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a layer's new keys and values where the pass stands; return what to attend to.

        Args:
            layer: Its number.
            keys: Shape (rows, key-value heads, new tokens, head size).
            values: Of the same shape.
        """
        if not self._stored[layer]:
            self._stored[layer] = [
                states.new_zeros((self.slots, states.shape[1], self.capacity, states.shape[3]))
                for states in (keys, values)
            ]
        stored_keys, stored_values = self._stored[layer]
        rows = keys.shape[0]
        if self.prefill_from is not None:
            first, length = self.prefill_from, keys.shape[2]
            stored_keys[first : first + rows, :, :length] = keys
            stored_values[first : first + rows, :, :length] = values
            return keys, values
        stored_keys[self.rows, :, self.positions] = keys[:, :, 0]
        stored_values[self.rows, :, self.positions] = values[:, :, 0]
        return stored_keys[:rows, :, : self.width], stored_values[:rows, :, : self.width]

    def visible(self) -> torch.Tensor:
        """Which places each row of a step may look at; bool, shape (rows, width)."""
        places = torch.arange(self.width, device=self.positions.device)
        return places[None, :] <= self.positions[:, None]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` tokens over another row."""
        for pair in self._stored:
            for tensor in pair:
                tensor[target, :, :length] = tensor[source, :, :length]

    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(tensor.nbytes for pair in self._stored for tensor in pair)

    def _reserve(self, length: int) -> None:
        if length <= self.capacity:
            return
        self.capacity = min(self.limit, max(length, 2 * self.capacity))
        for pair in self._stored:
            for place, old in enumerate(pair):
                new = old.new_zeros((*old.shape[:2], self.capacity, old.shape[3]))
                new[:, :, : old.shape[2]] = old
                pair[place] = new
