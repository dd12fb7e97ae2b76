"""Who takes part, by name, and how near to float32 each has to be. Imports nothing heavy.

A name says what runs, in which precision, and how many texts side by side.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of doing one task.

    Attributes:
        task: `decode` or `score`.
        library: What it runs on; the worker knows how.
        precision: `float32`, `bfloat16`, `int8` (cert's dynamic one) or `q8_0` (llama.cpp's).
        rows: Texts side by side.
        variant: What else there is to choose, for example `scores`.
        python: Whose interpreter: `own`, `peers` or `openvino`.
    """

    task: str
    library: str
    precision: str
    rows: int
    variant: str = ""
    python: str = "own"

    @property
    def name(self) -> str:
        """As `--only` knows it."""
        parts = (self.library, self.variant, self.precision, str(self.rows))
        return "-".join(part for part in ("score" * (self.task == "score"), *parts) if part)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Distances from transformers' forward pass in float32 that are let pass.

    Attributes:
        near_tie: How far a greedy token's logit may be below the largest one.
        largest_nats: Of one token's logprob or entropy.
        mean_nats: The mean of absolute differences over all tokens.
    """

    near_tie: float
    largest_nats: float
    mean_nats: float


TOLERANCES = {
    "float32": Tolerance(2e-3, 2e-3, 2e-4),
    "bfloat16": Tolerance(1.0, 1.0, 0.1),
    "int8": Tolerance(3.0, 3.0, 0.4),
    "q8_0": Tolerance(1.5, 1.5, 0.2),
}
PRECISIONS = ("float32", "bfloat16", "int8")
SCORING_ROWS = 16

CONTESTANTS = {
    one.name: one
    for one in (
        *(Contestant("decode", "cert", p, rows) for p in PRECISIONS for rows in (1, 16, 64)),
        Contestant("decode", "loop", "float32", 1, "scores"),
        Contestant("decode", "generate", "float32", 16, "scores"),
        Contestant("decode", "generate", "float32", 16, "bare"),
        Contestant("decode", "continuous", "float32", 16),
        *(
            Contestant("decode", "llamacpp", p, rows, python="peers")
            for p in ("float32", "bfloat16", "q8_0")
            for rows in (1, 16)
        ),
        *(
            Contestant("decode", "openvino", p, rows, python="openvino")
            for p in PRECISIONS
            for rows in (1, 16)
        ),
        *(Contestant("score", "cert", p, SCORING_ROWS) for p in PRECISIONS),
        Contestant("score", "forward", "float32", SCORING_ROWS),
        *(
            Contestant("score", library, "float32", SCORING_ROWS, python="peers")
            for library in ("lmeval", "minicons", "evaluate", "polygraph")
        ),
    )
}
