"""What was measured of a text, token by token.

A trace keeps one number a token and signal, never a distribution. Its values are float32
readings held as the shortest decimals that round-trip, so that a summary computed from a record
equals the one computed when the record was made, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from cert.core.errors import NumericalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

ROUNDING_NATS = 1e-3
"""How far float32 rounding may carry a reading out of its domain before it counts as wrong."""


@dataclass(frozen=True, slots=True)
class SignalTrace:
    """Per-token signals of one text, all of the raw distribution; every tuple has one item a token.

    Attributes:
        token_ids: The scored tokens.
        logprobs: ln p of each token, in nats; -inf where the model held it to be impossible.
        entropies: Full-vocabulary entropy in nats, in [0, ln V].
        top_k_entropies: Entropy in nats of the 10 largest probabilities, renormalised.
        logit_margins: Largest minus second largest logit, >= 0 (inf where only one is finite).
        probability_margins: Largest minus second largest probability, in [0, 1].
        ranks: Number of tokens with a strictly larger logit; 0 is the most probable.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    top_k_entropies: tuple[float, ...]
    logit_margins: tuple[float, ...]
    probability_margins: tuple[float, ...]
    ranks: tuple[int, ...]

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self.token_ids)


def build_trace(  # noqa: PLR0913, PLR0917 - one argument a signal
    token_ids: Sequence[int],
    logprobs: ArrayLike,
    entropies: ArrayLike,
    top_k_entropies: ArrayLike,
    logit_margins: ArrayLike,
    probability_margins: ArrayLike,
    ranks: Sequence[int] | NDArray[np.integer],
) -> SignalTrace:
    """Turn a backend's arrays into a trace.

    Every reading is rounded to float32 and held as the shortest decimal that reads back as the
    same float32; -0 becomes 0. A reading less than `ROUNDING_NATS` outside its domain is float32
    rounding and is put on the border (a logprob of 1e-7 becomes 0).

    Args:
        token_ids: The scored tokens, each >= 0, shape (T,); T may be 0.
        logprobs: ln p, shape (T,), in [-inf, 0].
        entropies: Nats, shape (T,), finite, >= 0.
        top_k_entropies: The same.
        logit_margins: Shape (T,), in [0, inf].
        probability_margins: Shape (T,), in [0, 1].
        ranks: Shape (T,), each >= 0.

    Raises:
        NumericalError: A reading is NaN, infinite where it cannot be, or outside its domain.
        ValueError: Lengths differ, or a token id or rank is negative.
    """
    ids = tuple(map(int, token_ids))
    places = tuple(map(int, ranks))
    if any(one < 0 for one in ids) or any(one < 0 for one in places):
        raise ValueError("token ids and ranks are not negative")
    trace = SignalTrace(
        token_ids=ids,
        logprobs=_readings("logprobs", logprobs, low=-math.inf, high=0.0),
        entropies=_readings("entropies", entropies, low=0.0, high=_LARGEST),
        top_k_entropies=_readings("top_k_entropies", top_k_entropies, low=0.0, high=_LARGEST),
        logit_margins=_readings("logit_margins", logit_margins, low=0.0, high=math.inf),
        probability_margins=_readings("probability_margins", probability_margins, low=0, high=1),
        ranks=places,
    )
    for name in SignalTrace.__slots__:
        if len(getattr(trace, name)) != len(ids):
            raise ValueError(f"{len(ids)} token ids but {len(getattr(trace, name))} {name}")
    return trace


_LARGEST = 3.4028234663852886e38
"""Of float32."""


def _readings(name: str, values: ArrayLike, *, low: float, high: float) -> tuple[float, ...]:
    import numpy as np  # noqa: PLC0415 - building takes it, reading evidence does not

    wide = np.asarray(values)
    if wide.ndim != 1:
        raise ValueError(f"{name} have the shape {wide.shape}; expected (T,)")
    with np.errstate(over="ignore"):
        array = wide.astype(np.float32)
    inside = (array >= low - ROUNDING_NATS) & (array <= high + ROUNDING_NATS)
    if not inside.all():
        at = int(np.argmin(inside))
        raise NumericalError(f"{name}[{at}] is {wide[at]}; expected {low} to {high}")
    clipped = np.clip(array, np.float32(low), np.float32(high)) + np.float32(0.0)
    # orjson writes float32 in shortest form, and non-finite ones as null.
    decimals = orjson.loads(orjson.dumps(clipped, option=orjson.OPT_SERIALIZE_NUMPY))
    if not np.isfinite(clipped).all():
        decimals = [
            float(one) if decimal is None else decimal
            for one, decimal in zip(clipped, decimals, strict=True)
        ]
    return tuple(decimals)
