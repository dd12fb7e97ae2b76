"""What this machine can do at best: copies, and products of large matrices."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

COPY_BYTES = 2**28
SIZE = 1536
ROUNDS = 5


def ceilings() -> dict[str, float]:
    """GB/s of a copy (read and written), and GFLOP/s of products by type."""
    source = torch.randn(COPY_BYTES // 4)
    target = torch.empty_like(source)
    found = {"copy_gb_per_s": 2 * COPY_BYTES / _seconds(lambda: target.copy_(source)) / 1e9}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        # Where bfloat16 is not multiplied by the processor, a large product takes minutes.
        size = SIZE if dtype is torch.float32 else 256
        left = torch.randn(size, size).to(dtype)
        passed = _seconds(lambda left=left: left @ left)
        found[f"{name}_gflop_per_s"] = 2 * size**3 / passed / 1e9
    levels = torch.randint(-63, 64, (SIZE, SIZE), dtype=torch.int8)
    found["int8_gop_per_s"] = 2 * SIZE**3 / _seconds(lambda: torch._int_mm(levels, levels)) / 1e9  # noqa: SLF001 - torch has no other name for it
    return {name: round(value, 2) for name, value in found.items()}


def _seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
