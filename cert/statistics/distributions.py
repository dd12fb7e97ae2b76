"""Student's t, the normal and the beta distribution, on numbers and on arrays.

The only module here that imports scipy, and of it `scipy.special` alone: `scipy.stats` takes much
longer to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import special  # type: ignore[import-untyped] # scipy has no types

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]


def t_quantile(degrees: float, confidence: float) -> float:
    """Two-sided quantile of t: 2.262 for 9 degrees at 0.95; NaN for NaN degrees."""
    return float(special.stdtrit(degrees, 0.5 + confidence / 2.0))


def t_probability(degrees: float, t: Floats) -> Floats:
    """P(T <= t); NaN for NaN."""
    return np.asarray(special.stdtr(degrees, t), dtype=np.float64)


def normal_quantile(probability: Floats | float) -> Floats:
    """Quantile of the standard normal: 1.960 at 0.975."""
    return np.asarray(special.ndtri(probability), dtype=np.float64)


def normal_probability(z: Floats) -> Floats:
    """P(Z <= z) of the standard normal."""
    return np.asarray(special.ndtr(z), dtype=np.float64)


def beta_quantile(a: float, b: float, probability: float) -> float:
    """Quantile of the beta distribution: 0.5 at 0.5 for a = b."""
    return float(special.betaincinv(a, b, probability))
