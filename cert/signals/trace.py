"""What was measured of a text, token by token, and its summary.

A trace keeps one number a token and signal, never a distribution. Its values are float32
readings held as the shortest decimals that round-trip, so that a summary computed from a record
equals the one computed when the record was made, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass


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
