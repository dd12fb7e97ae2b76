from __future__ import annotations

import importlib
import lzma
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

TOOLS = Path(__file__).resolve().parents[2] / "tools"
VOCABULARY = 7


@pytest.fixture(scope="module")
def baselines() -> Iterator[ModuleType]:
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module("reference_baselines")
    finally:
        sys.path.remove(str(TOOLS))


def documents(seed: int, count: int) -> list[np.ndarray]:
    """Begun by id 0, which never comes again."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        ids = [0]
        for _ in range(rng.randint(1, 30)):
            ids.append(1 + (ids[-1] * 2 + rng.choice([0, 0, 0, 1, 3])) % (VOCABULARY - 1))
        made.append(np.array(ids, dtype=np.uint16))
    return made


def ngrams(ids: np.ndarray, order: int) -> list[tuple[int, ...]]:
    padded = [0] * (order - 2) + ids.tolist()
    return [tuple(padded[i : i + order]) for i in range(len(padded) - order + 1)]


def by_the_book(
    baselines: ModuleType, train: list[np.ndarray], order: int, gram: tuple[int, ...]
) -> float:
    """The recursion as written in the paper, over dictionaries."""
    counts = Counter(g for d in train for g in ngrams(d, order))
    tables = {order: counts}
    for length in range(order - 1, 0, -1):
        lower: Counter[tuple[int, ...]] = Counter()
        for g in tables[length + 1]:
            lower[g[1:]] += 1
        tables[length] = lower

    def probability(g: tuple[int, ...]) -> float:
        if not g:
            return 1 / VOCABULARY
        table = tables[len(g)]
        followers = defaultdict(int, {k[-1]: c for k, c in table.items() if k[:-1] == g[:-1]})
        lower = probability(g[1:])
        if not followers:
            return lower
        d = baselines.discounts(np.array(list(table.values())))
        total = sum(followers.values())
        held_back = sum(d[min(c, 3)] for c in followers.values())
        c = followers[g[-1]]
        return (c - d[min(c, 3)]) / total + held_back / total * lower

    return probability(gram)


def test_discounts_known_answer(baselines: ModuleType) -> None:
    # n1 = 4, n2 = 2, n3 = 1, n4 = 1: Y = 1/2
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4])
    assert baselines.discounts(counts) == pytest.approx([0, 0.5, 1.25, 1.0])


def test_discounts_of_too_little_data_stay_between_zero_and_the_count(
    baselines: ModuleType,
) -> None:
    assert baselines.discounts(np.array([1, 1, 1])) == pytest.approx([0, 0.5, 1.0, 1.5])
    for counts in ([1, 2, 2, 2, 2], [1, 2, 3, 3, 3, 3, 4], [3] + [4] * 9 + [1, 2]):
        d = baselines.discounts(np.array(counts))
        assert (d >= 0).all()
        assert (d <= np.arange(4)).all()


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_sum_to_one_in_seen_and_unseen_contexts(
    baselines: ModuleType, order: int
) -> None:
    model = baselines.KneserNey(documents(1, 20), VOCABULARY, order)
    rng = random.Random(2)
    for _ in range(50):
        context = [rng.randrange(VOCABULARY) for _ in range(order - 1)]
        keys = [0] * VOCABULARY
        for token in range(VOCABULARY):
            for part in [*context, token]:
                keys[token] = (keys[token] << baselines.ID_BITS) | part
        p = model.probabilities(np.array(keys, dtype=np.uint64))
        assert (p > 0).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_agrees_with_the_recursion_over_dictionaries(baselines: ModuleType, order: int) -> None:
    train, held_out = documents(3, 12), documents(4, 4)
    model = baselines.KneserNey(train, VOCABULARY, order)
    got = model.probabilities(baselines.pack(held_out, order))
    expected = [by_the_book(baselines, train, order, g) for d in held_out for g in ngrams(d, order)]
    assert got == pytest.approx(expected, rel=1e-12)
    assert model.bits(held_out) == pytest.approx(-np.log2(expected).sum())


def test_a_longer_context_helps_where_the_text_depends_on_it(baselines: ModuleType) -> None:
    ids = np.array([0] + [1, 2, 1, 3] * 60, dtype=np.uint16)
    bits = [baselines.KneserNey([ids], VOCABULARY, order).bits([ids]) for order in (2, 3)]
    assert bits[1] < bits[0] / 3


def test_ids_that_do_not_fit_are_refused(baselines: ModuleType) -> None:
    with pytest.raises(ValueError, match="12 bits"):
        baselines.KneserNey(documents(1, 1), 4097)


def test_measure_counts_what_the_reference_model_is_scored_on(
    baselines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train_reference import Plan, train_tokenizer

    rng = random.Random(5)
    words = [
        "the",
        "sea",
        "was",
        "calm",
        "and",
        "a",
        "ship",
        "went",
        "without",
        "wind",
        "or",
        "hope",
    ]
    texts = [" ".join(rng.choices(words, k=60)) + "\n" for _ in range(40)]
    parts = {s: {"train": texts[:30], "held_out": texts[30:]} for s in baselines.SOURCES}
    monkeypatch.setattr(baselines, "split", lambda corpus: parts)
    tokenizer = train_tokenizer(parts, Plan(vocab_size=300, technical_repeats=1))
    result = baselines.measure(tmp_path, tokenizer)["classics"]
    held_out = texts[30:]
    assert result["documents"] == 10
    assert result["bytes"] == sum(len(t) for t in held_out)
    assert result["tokens"] == sum(len(tokenizer.encode(t).ids) - 1 for t in held_out)
    assert 0 < result["kneser_ney_5"] < 3
    alone = len(lzma.compress("\n".join(held_out).encode(), preset=9 | lzma.PRESET_EXTREME))
    assert result["xz"] == pytest.approx(8 * alone / result["bytes"], abs=1e-4)
    assert result["xz_given_training"] < result["xz"]
