"""Keys and values of many running texts, in slots of one tensor a layer.

Rows 0 to n-1 of the slots are the running texts. Each row has a length of its own; what lies
behind it is garbage that the attention mask hides and later tokens overwrite. A retired row is
filled with the last one, so that a step always works on one dense block.
"""

from __future__ import annotations

import math

import numpy as np
import torch

_FIRST_CAPACITY = 64


class SlotCache:
    """Where a model's forward pass keeps keys and values, and finds the earlier ones.

    Say where the next forward pass stands with `begin_prefill` or `begin_step`, then run it.
    Capacity doubles as texts grow, up to `limit`; memory follows the longest running text.

    Attributes:
        capacity: Tokens that a slot holds; a change means that every tensor was replaced.
        width: Of a step: how many places of every slot are looked at; 0 in a prefill pass.
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
        self.width = 0
        self._first_slot = 0
        self._positions = torch.empty(0, dtype=torch.int64)
        self._rows = torch.empty(0, dtype=torch.int64)
        # By layer: keys and values, each (slots, key-value heads, capacity, head size): what one
        # head looks at lies in one piece.
        self._stored: list[list[torch.Tensor]] = [[] for _ in range(layers)]

    def begin_prefill(self, first_slot: int, length: int) -> None:
        """The next pass feeds whole prompts of at most this length, into slots from there on."""
        self.reserve(length)
        self._first_slot = first_slot
        self.width = 0

    def begin_step(self, positions: torch.Tensor, width: int) -> None:
        """The next pass feeds one token a row.

        Args:
            positions: Where each row's token stands, int64, shape (rows,).
            width: More than the largest position.
        """
        self.reserve(width)
        self._positions = positions
        self._rows = torch.arange(len(positions), device=positions.device)
        self.width = width

    def store_texts(self, layer: int, place: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put whole texts into the slots of a prefill pass, from the one at `place` on.

        Args:
            layer: Its number.
            place: Of the first text, among those of this pass.
            keys: Shape (texts, key-value heads, tokens, head size).
            values: Of the same shape.
        """
        first = self._first_slot + place
        for stored, states in zip(self._tensors(layer, keys), (keys, values), strict=True):
            stored[first : first + states.shape[0], :, : states.shape[2]] = states

    def store_step(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a step's keys and values in place; return what its tokens may look at.

        Args:
            layer: Its number.
            keys: Shape (rows, key-value heads, head size).
            values: Of the same shape.

        Returns:
            Keys and values, each of shape (rows, key-value heads, width, head size).
        """
        found = []
        for stored, states in zip(self._stored[layer], (keys, values), strict=True):
            stored[self._rows, :, self._positions] = states
            found.append(stored[: states.shape[0], :, : self.width])
        return found[0], found[1]

    def visible(self) -> torch.Tensor:
        """Which places each row of a step may look at; bool, shape (rows, width)."""
        places = torch.arange(self.width, device=self._positions.device)
        return places[None, :] <= self._positions[:, None]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` tokens over another row."""
        for pair in self._stored:
            for tensor in pair:
                tensor[target, :, :length] = tensor[source, :, :length]

    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(tensor.nbytes for pair in self._stored for tensor in pair)

    def reserve(self, length: int) -> None:
        """Make room for texts of this length."""
        if length <= self.capacity:
            return
        self.capacity = min(self.limit, max(length, 2 * self.capacity))
        for pair in self._stored:
            for place, old in enumerate(pair):
                new = _zeros((*old.shape[:2], self.capacity, old.shape[3]), old)
                new[:, :, : old.shape[2]] = old
                pair[place] = new

    def _tensors(self, layer: int, states: torch.Tensor) -> list[torch.Tensor]:
        if not self._stored[layer]:
            shape = (self.slots, states.shape[1], self.capacity, states.shape[3])
            self._stored[layer] = [_zeros(shape, states), _zeros(shape, states)]
        return self._stored[layer]


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros of the type and on the device of `like`.

    On a CPU numpy gets them, which asks for memory that is zero and lets the system use large
    pages; filling 2 GB by hand takes a second.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    count = math.prod(shape)
    return torch.from_numpy(np.zeros(count * like.itemsize, np.uint8)).view(like.dtype).view(shape)
