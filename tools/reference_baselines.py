"""What simpler models make of the reference model's held-out documents, in bits per byte.

    python tools/reference_baselines.py --corpus DIR --tokenizer cert/reference/model/tokenizer.json

- `kneser_ney_5`: an interpolated modified Kneser-Ney 5-gram model over the reference model's own
  tokens, counted on the same training documents (each once) and scoring exactly the tokens that
  `train_reference.bits_per_byte` scores.
- `xz`: size of the held-out text under `xz -9e`, in bits over its bytes.
- `xz_given_training`: the same of the bytes it adds after the training text; the dictionary of
  -9 (64 MiB) holds the training text whole.

Chen and Goodman, An empirical study of smoothing techniques for language modeling (1999).
"""

from __future__ import annotations

import argparse
import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from tokenizers import Tokenizer
from train_reference import SOURCES, encode_stream, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Keys = NDArray[np.uint64]
    Probabilities = NDArray[np.float64]

ID_BITS = 12
DISCOUNTED_COUNTS = 3


@dataclass(frozen=True, slots=True)
class Level:
    """One order k of the model: its n-grams, and what their contexts (k - 1 tokens) sum to.

    Attributes:
        keys: Packed n-grams, ascending; shape (n-grams,).
        kept: Their counts less the discount; shape (n-grams,).
        contexts: Packed contexts, ascending; shape (contexts,).
        totals: Sum of a context's undiscounted counts; shape (contexts,).
        backoff: Share of a context's mass that goes to the next lower order; shape (contexts,).
    """

    keys: Keys
    kept: Probabilities
    contexts: Keys
    totals: Probabilities
    backoff: Probabilities

    @classmethod
    def build(cls, keys: Keys, counts: NDArray[np.int64]) -> Self:
        """Discount the counts of one order."""
        contexts, starts = np.unique(keys >> np.uint64(ID_BITS), return_index=True)
        discount = discounts(counts)[np.minimum(counts, DISCOUNTED_COUNTS)]
        totals = np.add.reduceat(counts, starts).astype(np.float64)
        backoff = np.add.reduceat(discount, starts) / totals
        return cls(keys, counts - discount, contexts, totals, backoff)


def discounts(counts: NDArray[np.int64]) -> Probabilities:
    """D(0) to D(3+) of modified Kneser-Ney, estimated from the counts of counts.

    D(k) = k - (k + 1) * Y * n[k + 1] / n[k] with Y = n[1] / (n[1] + 2 n[2]). Where a count of
    counts is zero (tiny data) D(k) is k / 2. Returns shape (4,), D(0) = 0 and 0 <= D(k) <= k.
    """
    n = np.bincount(np.minimum(counts, DISCOUNTED_COUNTS + 2), minlength=DISCOUNTED_COUNTS + 3)
    result = np.arange(DISCOUNTED_COUNTS + 1) / 2
    if n[1] and n[2]:
        y = n[1] / (n[1] + 2 * n[2])
        for k in range(1, DISCOUNTED_COUNTS + 1):
            if n[k] and n[k + 1]:
                result[k] = min(max(k - (k + 1) * y * n[k + 1] / n[k], 0.0), k)
    return result


def pack(documents: Sequence[NDArray[np.uint16]], order: int) -> Keys:
    """N-grams of `order` tokens that end at each token, `order * ID_BITS` bits each.

    Documents begin with the end-of-text token, which is never predicted: it stands for whatever
    comes before. Returns shape (tokens without the first of each document,).
    """
    packed = []
    for document in documents:
        padded = np.concatenate([np.repeat(document[:1], order - 2), document]).astype(np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, order)
        keys = np.zeros(len(windows), dtype=np.uint64)
        for place in range(order):
            keys = (keys << np.uint64(ID_BITS)) | windows[:, place]
        packed.append(keys)
    return np.concatenate(packed)


class KneserNey:
    """Interpolated modified Kneser-Ney over token ids below 4096."""

    def __init__(
        self, documents: Sequence[NDArray[np.uint16]], vocab_size: int, order: int = 5
    ) -> None:
        if vocab_size > 1 << ID_BITS:
            raise ValueError(f"{vocab_size} ids don't fit {ID_BITS} bits")
        self.vocab_size = vocab_size
        self.order = order
        keys, counts = np.unique(pack(documents, order), return_counts=True)
        levels = [Level.build(keys, counts)]
        for length in range(order - 1, 0, -1):
            # A lower order counts in how many contexts an n-gram was seen, not how often.
            mask = np.uint64((1 << (length * ID_BITS)) - 1)
            keys, counts = np.unique(keys & mask, return_counts=True)
            levels.append(Level.build(keys, counts))
        self._levels = tuple(reversed(levels))

    def probabilities(self, ngrams: Keys) -> Probabilities:
        """P(last token | the others) of packed n-grams of `order` tokens; shape (n-grams,)."""
        result = np.full(len(ngrams), 1.0 / self.vocab_size)
        for length, level in enumerate(self._levels, start=1):
            keys = ngrams & np.uint64((1 << (length * ID_BITS)) - 1)
            context, seen = find(level.contexts, keys >> np.uint64(ID_BITS))
            place, counted = find(level.keys, keys)
            kept = np.where(counted, level.kept[place], 0.0)
            mixed = kept / level.totals[context] + level.backoff[context] * result
            result = np.where(seen, mixed, result)
        return result

    def bits(self, documents: Sequence[NDArray[np.uint16]]) -> float:
        """Total surprisal of the documents in bits, first tokens (end of text) left out."""
        return float(-np.log2(self.probabilities(pack(documents, self.order))).sum())


def find(haystack: Keys, needles: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Place of each needle in an ascending array, and whether it is there at all."""
    places = np.minimum(np.searchsorted(haystack, needles), len(haystack) - 1)
    return places, haystack[places] == needles


def xz_bytes(text: bytes) -> int:
    """Size under `xz -9e`."""
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def measure(corpus: Path, tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
    """All figures by source of the held-out documents."""
    parts = split(corpus)
    training = [document for source in SOURCES for document in parts[source]["train"]]
    model = KneserNey(
        [encode_stream(tokenizer, [document]) for document in training],
        tokenizer.get_vocab_size(),
    )
    before = "\n".join(training).encode()
    size_before = xz_bytes(before)
    result = {}
    for source in SOURCES:
        documents = parts[source]["held_out"]
        text = "\n".join(documents).encode()
        count = sum(len(document.encode()) for document in documents)
        streams = [encode_stream(tokenizer, [document]) for document in documents]
        result[source] = {
            "documents": len(documents),
            "bytes": count,
            "tokens": sum(len(stream) - 1 for stream in streams),
            "kneser_ney_5": round(model.bits(streams) / count, 4),
            "xz": round(8 * xz_bytes(text) / count, 4),
            "xz_given_training": round(8 * (xz_bytes(before + text) - size_before) / count, 4),
        }
    return result


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    print(json.dumps(measure(arguments.corpus, tokenizer), indent=2))


if __name__ == "__main__":
    main()
