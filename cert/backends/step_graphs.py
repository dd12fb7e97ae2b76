"""A decode step with its signals as one CUDA graph, so that a GPU does not wait for Python.

A graph has fixed shapes and addresses. So there is one for each number of rows (a power of two) and
each width of the cache (a multiple of 256); the rows that are too many write where no text is.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cert.backends.kernels import measure_tensor
from cert.backends.top_logits import top_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cert.backends.causal_lm import CausalLM
    from cert.backends.kv_cache import SlotCache

logger = logging.getLogger(__name__)

_WIDTH = 256
_GRAPHS_KEPT = 32
_WARM_UPS = 2
"""Libraries allocate at their first calls, which a graph cannot record."""


@dataclass(frozen=True, slots=True)
class GreedyStep:
    """One step of every running text, the most probable token chosen.

    Attributes:
        logits: Shape (rows, V); overwritten by the next step.
        token_ids: One a row.
        measured: Of those tokens, as `kernels.measure` gives it.
    """

    logits: torch.Tensor
    token_ids: list[int]
    measured: NDArray[Any]


@dataclass(slots=True)
class _Recorded:
    ids: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor
    measured: torch.Tensor
    graph: torch.cuda.CUDAGraph | None = None


class StepGraphs:
    """The graphs of one model and one cache.

    Attributes:
        is_recording: Whether the model's steps can be recorded; otherwise they run as they are.
    """

    def __init__(self, model: CausalLM, cache: SlotCache) -> None:
        """Start without any; each is recorded when it is first needed."""
        self._model = model
        self._cache = cache
        self._capacity = cache.capacity
        self._graphs: OrderedDict[tuple[int, int], _Recorded] = OrderedDict()
        self._pool: Any = None
        self.is_recording = True

    def run(self, ids: Sequence[int], positions: Sequence[int]) -> GreedyStep:
        """Feed one token a row.

        Args:
            ids: Token ids, one a row.
            positions: Where each stands in its text.
        """
        count = len(ids)
        rows = min(self._cache.slots, 1 << (count - 1).bit_length())
        width = min(self._cache.limit, -(-(max(positions) + 1) // _WIDTH) * _WIDTH)
        self._cache.reserve(width)
        if self._cache.capacity != self._capacity:
            # The tensors that the graphs know are gone.
            self._graphs.clear()
            self._capacity = self._cache.capacity
        recorded = self._find(rows, width, ids, positions)
        if recorded.graph is not None:
            recorded.graph.replay()
        measured = recorded.measured[:count].cpu().numpy()
        ids_next = measured[:, -1].astype(int).tolist()
        return GreedyStep(recorded.logits[:count], ids_next, measured[:, :-1])

    def _find(
        self, rows: int, width: int, ids: Sequence[int], positions: Sequence[int]
    ) -> _Recorded:
        """The graph of this shape, with its input filled; without one, the step as it was run."""
        device = self._model.device
        spare = [0] * (rows - len(ids))
        both = torch.tensor([[*ids, *spare], [*positions, *spare]])
        key = (rows, width)
        recorded = self._graphs.get(key)
        if recorded is not None:
            self._graphs.move_to_end(key)
            recorded.ids.copy_(both[0])
            recorded.positions.copy_(both[1])
            return recorded
        fed, where = both.to(device)
        if not self.is_recording:
            return _Recorded(fed, where, *self._forward(fed, where, width))
        recorded = self._record(fed.clone(), where.clone(), width)
        if recorded.graph is not None:
            self._graphs[key] = recorded
            if len(self._graphs) > _GRAPHS_KEPT:
                self._graphs.popitem(last=False)
        return recorded

    def _record(self, ids: torch.Tensor, positions: torch.Tensor, width: int) -> _Recorded:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                logits, measured = self._forward(ids, positions, width)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                recorded = self._forward(ids, positions, width)
        except RuntimeError as error:
            # Layers of other libraries may do what a graph cannot record.
            logger.debug("steps of this model are not recorded: %s", error)
            self.is_recording = False
            return _Recorded(ids, positions, logits, measured)
        return _Recorded(ids, positions, *recorded, graph)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and what was measured, with the tokens as its last column."""
        self._cache.begin_step(positions, width)
        logits = self._model.step(ids, positions, self._cache)
        top = top_logits(logits)
        measured = measure_tensor(logits, top.first, top)
        return logits, torch.cat((measured, top.first[:, None].to(measured.dtype)), dim=1)
