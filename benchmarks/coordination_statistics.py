"""How often the coordination monitor's intervals and verdicts are right, in simulation.

    nice -n 10 .venv/bin/python benchmarks/coordination_statistics.py [--tables coverage false]

One core, some minutes. `coordination_worlds.py` says what is drawn. Every table says what it
counts; a rate p over R trials has the standard error sqrt(p (1 - p) / R), .0011 for .95 of 40,000.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy
from coordination_worlds import GROUPINGS, SWING, World, bootstrap_bounds

from cert.statistics import (
    Arm,
    CoordinationVerdict,
    Replicate,
    Strategy,
    Trial,
    VerdictRule,
    judge,
    required_tasks,
)
from cert.statistics.clusters import build_clusters
from cert.statistics.crossfit import SPLITS, half_of_groups, held_out_gains
from cert.statistics.distributions import t_quantile
from cert.statistics.moments import fieller_set, paired_moments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from cert.statistics.clusters import Clusters

CONFIDENCE = 0.95
ALPHA = (1.0 - CONFIDENCE) / 2.0
MARGIN = VerdictRule().margin
ELEMENTS = 1_000_000
TASKS = (5, 10, 20, 30, 50, 100)
EFFECTS = ((0.3, 1.0), (0.3, 1.2), (0.6, 1.0), (0.6, 1.2), (0.9, 0.85), (0.9, 1.0))
"""Rate of A and gamma; the last one is the ceiling, where hardly any score differs."""


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print(f"\n## {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        print(f"| {' | '.join(cells)} |", flush=True)


def cover(world: World, rng: np.random.Generator, runs: int) -> dict[str, float]:
    """How often gamma's interval holds the truth."""
    alone, together = world.draw_rates(rng, runs)
    a = world.draw_means(rng, alone)
    b = world.draw_means(rng, together)
    moments = paired_moments(build_clusters(world.groups), b, a)
    found = fieller_set(moments, CONFIDENCE)
    bounded = ~np.isnan(found.lower)
    above, below = found.lower > world.gamma, found.upper < world.gamma
    # Membership in the whole set, an interval or not: the t test of B - gamma A.
    reach = t_quantile(moments.degrees, CONFIDENCE) ** 2 * moments.variance_at(world.gamma)
    inside = np.square(moments.top - world.gamma * moments.bottom) <= reach
    varying = ~(found.is_constant | np.isnan(found.estimate))
    return {
        "bounded": bounded.mean(),
        "unbounded": found.is_unbounded.mean(),
        "covered": 1.0 - (bounded & (above | below)).sum() / max(1, bounded.sum()),
        "set": inside[varying].mean() if varying.any() else np.nan,
        "overall": 1.0 - (varying & ~inside).mean(),
        "above": (bounded & above).mean(),
        "below": (bounded & below).mean(),
    }


def coverage_tables(seed: int, runs: int) -> None:
    """Coverage of gamma by scores, rate, effect, grouping and number of tasks."""
    full, summary = [], []
    for scores in ("binary", "graded"):
        for number, (grouping, sizes) in enumerate(GROUPINGS.items()):
            found = {
                (rate, gamma, n): cover(
                    World(scores, rate, gamma, sizes(n)),
                    np.random.default_rng([seed, n, number, place, scores == "binary"]),
                    min(runs, ELEMENTS // n),
                )
                for place, (rate, gamma) in enumerate(EFFECTS)
                for n in TASKS
            }
            for kind, effects in (("", EFFECTS[:-1]), (", ceiling", EFFECTS[-1:])):
                columns = [[found[rate, gamma, n] for rate, gamma in effects] for n in TASKS]
                sets = [[cell["set"] for cell in column] for column in columns]
                bounded = [min(cell["bounded"] for cell in column) for column in columns]
                cells = [
                    f"{min(c):.3f} .. {max(c):.3f} ({b:.2f})"
                    for c, b in zip(sets, bounded, strict=True)
                ]
                summary.append((scores, grouping + kind, *cells))
            for rate, gamma in EFFECTS:
                cells = [
                    "{set:.3f} {bounded:.2f}/{covered:.3f}".format(**found[rate, gamma, n])
                    for n in TASKS
                ]
                full.append((scores, grouping, rate, gamma, *cells))
    sizes_head = [f"n={n}" for n in TASKS]
    show(
        "Coverage of gamma by Fieller's set: least .. largest over rates and effects"
        " (least share with a bounded interval); `ceiling` is rate .9 without an effect",
        ["scores", "groups", *sizes_head],
        summary,
    )
    show(
        "All of it: coverage of the set where scores vary, share bounded / coverage of those",
        ["scores", "groups", "rate", "gamma", *sizes_head],
        full,
    )


def degrees_table(seed: int, runs: int) -> None:
    """What other degrees of freedom would do, groups alike throughout."""
    rows = []
    shapes = {
        "10 of 3": (3,) * 10,
        "1, 2, ... 10": tuple(range(1, 11)),
        "20 of 1, one of 10": (10,) + (1,) * 20,
        "1, 2, 4, 8, 15": (1, 2, 4, 8, 15),
        "50 of 1, two of 25": (25, 25) + (1,) * 50,
    }
    for number, (name, sizes) in enumerate(shapes.items()):
        rng = np.random.default_rng([seed, 1000 + number])
        world = World("binary", 0.6, 1.0, sizes)
        index = np.repeat(np.arange(len(sizes)), sizes)
        single = World("binary", 0.6, 1.0, (1,) * len(sizes))
        alone, together = single.draw_rates(rng, min(runs, 20_000))
        a = world.draw_means(rng, alone[:, index])
        b = world.draw_means(rng, together[:, index])
        clusters = build_clusters(world.groups)
        variants = (clusters, cr2(clusters), replace(clusters, degrees=len(sizes) - 1.0))
        cells = []
        for variant in variants:
            moments = paired_moments(variant, b, a)
            reach = t_quantile(moments.degrees, CONFIDENCE) ** 2 * moments.variance_at(1.0)
            inside = np.square(moments.top - moments.bottom) <= reach
            cells.append(f"{inside.mean():.3f} ({moments.degrees:.1f})")
        rows.append((name, *cells))
    show(
        "Coverage of gamma = 1, tasks of a group equally hard and with the same effect (degrees)",
        ["groups", "jackknife, Satterthwaite", "CR2, Satterthwaite", "jackknife, groups - 1"],
        rows,
    )


def cr2(clusters: Clusters) -> Clusters:
    """Bell and McCaffrey's variance and degrees, the latter from the whole matrix."""
    m, total = clusters.sizes, clusters.sizes.sum()
    weights = 1.0 / (1.0 - m / total) / total**2
    centre = np.eye(len(m)) - np.outer(m, np.ones(len(m))) / total
    form = centre.T @ np.diag(weights) @ centre @ np.diag(m)
    degrees = float(np.trace(form) ** 2 / np.trace(form @ form))
    return replace(clusters, weights=weights, degrees=degrees)


def bootstrap_table(seed: int, runs: int) -> None:
    """Percentile and BCa bootstrap beside Fieller, on the same data."""
    rows = []
    resamples = 999
    for scores in ("binary", "graded"):
        for n in (5, 10, 30):
            rng = np.random.default_rng([seed, 2000 + n, scores == "binary"])
            count = min(runs, 2000)
            world = World(scores, 0.6, 1.0, (1,) * n)
            alone, together = world.draw_rates(rng, count)
            a = world.draw_means(rng, alone)
            b = world.draw_means(rng, together)
            found = fieller_set(paired_moments(build_clusters(world.groups), b, a), CONFIDENCE)
            hits = np.zeros(2)
            used = 0
            bounded = ~np.isnan(found.lower)
            for x, y in zip(b[bounded], a[bounded], strict=True):
                bounds = bootstrap_bounds(x, y, rng, resamples=resamples, confidence=CONFIDENCE)
                if bounds is None:
                    continue
                used += 1
                hits += [lower <= 1.0 <= upper for lower, upper in bounds]
            inside = (found.lower <= 1.0) & (found.upper >= 1.0)
            rows.append((scores, n, used, float(inside[bounded].mean()), *(hits / used)))
    show(
        f"Coverage of gamma = 1 at rate 0.6, where the interval is bounded ({resamples} resamples)",
        ["scores", "n", "trials", "Fieller", "percentile", "BCa"],
        rows,
    )


def decide(
    clusters: Clusters, a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """`judge`, many at a time: p for benefit, least adjusted p for harm, and `undefined`."""
    alone, budget = paired_moments(clusters, b, a), paired_moments(clusters, b, c)
    gamma, for_money = fieller_set(alone, CONFIDENCE), fieller_set(budget, CONFIDENCE)
    known, known_budget = ~np.isnan(gamma.lower), ~np.isnan(for_money.lower)
    above = np.where(known, alone.p_above(1.0), 1.0)
    below = np.where(known, alone.p_below(1.0), 1.0)
    above_budget = np.where(known_budget, budget.p_above(1.0 - MARGIN), 1.0)
    below_budget = np.where(known_budget, budget.p_below(1.0 - MARGIN), 1.0)
    undefined = gamma.is_unbounded | for_money.is_unbounded
    undefined |= np.isnan(gamma.estimate) | np.isnan(for_money.estimate)
    harm = 2.0 * np.minimum(below, below_budget)
    return np.maximum(above, above_budget), harm, undefined


def false_verdicts_table(seed: int, runs: int) -> None:
    """Verdicts where B is no better than A."""
    rows = []
    # rate of C over that of A, swing of B's effect between tasks
    cases = {
        "A, B and C the same": (1.0, 0.0),
        "A, B and C the same on average": (1.0, SWING),
        "the same, and C half as good": (0.5, 0.0),
        "the same on average, and C half as good": (0.5, SWING),
    }
    for number, (name, (worth, swing)) in enumerate(cases.items()):
        for scores in ("binary", "graded"):
            for place, (grouping, sizes) in enumerate(GROUPINGS.items()):
                cells, harm = [], 0.0
                for n in TASKS[1:]:
                    rates = []
                    for rate in (0.3, 0.6, 0.9):
                        rng = np.random.default_rng(
                            [seed, 3000, number, scores == "binary", int(100 * rate), place, n]
                        )
                        world = World(scores, rate, 1.0, sizes(n), swing)
                        good, bad = false_verdicts(world, worth, rng, min(runs, ELEMENTS // n))
                        rates.append(good)
                        harm = max(harm, bad)
                    cells.append(f"{max(rates):.4f}")
                rows.append((name, scores, grouping, *cells, f"{harm:.4f}"))
    show(
        "False `beneficial` (aim: at most .025), the most at rates .3, .6 and .9; last column: the"
        " most false `harmful` at any n",
        ["truth", "scores", "groups", *(f"n={n}" for n in TASKS[1:]), "harmful"],
        rows,
    )


def false_verdicts(
    world: World, worth: float, rng: np.random.Generator, runs: int
) -> tuple[float, float]:
    """Shares of `beneficial` and of `harmful`, with C `worth` as good as A."""
    alone, together = world.draw_rates(rng, runs)
    arms = [world.draw_means(rng, rates) for rates in (alone, together, alone * worth)]
    found = good, harm, undefined = decide(build_clusters(world.groups), *arms)
    check_against_judge(world, arms, found)
    beneficial, harmful = (good < ALPHA) & ~undefined, (harm < ALPHA) & ~undefined
    return float(beneficial.mean()), float(harmful.mean())


def check_against_judge(
    world: World,
    arms: Sequence[NDArray[np.float64]],
    found: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    """The first five trials through the library; exit if it says anything else."""
    groups = world.groups
    for run in range(5):
        a, b, c = (
            Arm(name, tuple((Replicate(score=float(mean)),) for mean in means[run]))
            for name, means in zip("ABC", arms, strict=True)
        )
        trial = Trial(
            tasks=tuple(str(n) for n in range(len(groups))),
            groups=groups,
            single=a,
            strategies=(Strategy(name="B", coordinated=b, matched=c),),
        )
        verdict = judge(trial, VerdictRule())[0].verdict
        good, harm, undefined = (values[run] for values in found)
        expected = CoordinationVerdict.INCONCLUSIVE
        if undefined:
            expected = CoordinationVerdict.UNDEFINED
        elif harm < ALPHA:
            expected = CoordinationVerdict.HARMFUL
        elif good < ALPHA:
            expected = CoordinationVerdict.BENEFICIAL
        if verdict is not expected:
            raise SystemExit(f"{world}, trial {run}: {verdict} is not {expected}")


def skewed_table(seed: int, runs: int) -> None:
    """Rare failures that undo many small gains: the case that no sample without one can show."""
    rows = []
    for share in (0.02, 0.05, 0.1, 0.2):
        cells = []
        for n in TASKS[1:]:
            rng = np.random.default_rng([seed, 4000, int(100 * share), n])
            count = min(runs, ELEMENTS // n)
            world = World("binary", 1.0 - share, 1.0, (1,) * n)
            broken = rng.random((count, n)) < share
            a = world.draw_means(rng, np.full((count, n), 1.0 - share))
            b = (~broken).astype(np.float64)
            c = world.draw_means(rng, np.full((count, n), 0.5 * (1.0 - share)))
            good, _, undefined = decide(build_clusters(world.groups), a, b, c)
            false = (good < ALPHA) & ~undefined
            failed = np.concatenate([b, np.zeros((count, 1))], axis=-1)
            expected = np.concatenate([a, a.mean(axis=-1, keepdims=True)], axis=-1)
            clusters = build_clusters((*world.groups, "unseen"))
            sturdy = false & (paired_moments(clusters, failed, expected).p_above(1.0) < ALPHA)
            cells.append(f"{false.mean():.3f} ({sturdy.mean():.3f})")
        rows.append((share, *cells))
    show(
        "False `beneficial` where B always fails on a share of the tasks and never on the others,"
        " A fails anywhere at that rate, and C is half as good (those that a failure leaves)",
        ["share", *(f"n={n}" for n in TASKS[1:])],
        rows,
    )


def several_strategies_table(seed: int, runs: int) -> None:
    """Any false `beneficial` among several strategies, with and without Holm; C half as good."""
    rows = []
    for strategies in (1, 3, 6):
        for n in (10, 30, 100):
            rng = np.random.default_rng([seed, 5000, strategies, n])
            count = min(runs, ELEMENTS // n)
            world = World("binary", 0.6, 1.0, (1,) * n)
            clusters = build_clusters(world.groups)
            alone, _ = world.draw_rates(rng, count)
            a = world.draw_means(rng, alone)
            c = world.draw_means(rng, alone / 2.0)
            least = np.ones(count)
            for _ in range(strategies):
                b = world.draw_means(rng, alone)
                good, _, undefined = decide(clusters, a, b, c)
                least = np.minimum(least, np.where(undefined, 1.0, good))
            rows.append(
                (
                    strategies,
                    n,
                    float((least < ALPHA).mean()),
                    float((strategies * least < ALPHA).mean()),
                )
            )
    show(
        "Any false `beneficial` among several strategies",
        ["strategies", "n", "unadjusted", "Holm"],
        rows,
    )


def omega_table(seed: int, runs: int) -> None:
    """Omega and the oracle gap where B is drawn like any individual."""
    rows = []
    for scores in ("binary", "graded"):
        for rate in (0.3, 0.6, 0.9):
            for n in (10, 30, 100):
                rng = np.random.default_rng([seed, 6000, scores == "binary", int(100 * rate), n])
                count = min(runs, 300_000 // n)
                world = World(scores, rate, 1.0, (1,) * n)
                alone, _ = world.draw_rates(rng, count)
                individuals = world.draw_scores(rng, alone)
                together = world.draw_means(rng, alone)
                gains = np.zeros_like(together)
                variances = np.zeros(count)
                clusters = build_clusters(world.groups)
                for split in range(SPLITS):
                    half = half_of_groups(world.groups, seed=seed, split=split)
                    once = held_out_gains(individuals, together, half)
                    gains += once / SPLITS
                    variances += paired_moments(clusters, once, once).top_variance / SPLITS
                reach = t_quantile(n - 1.0, CONFIDENCE) * np.sqrt(variances)
                omegas = gains.mean(axis=-1)
                gap = (together - individuals.max(axis=-1)).mean()
                best = individuals.mean(axis=1).max(axis=-1)
                naive = (together.mean(axis=-1) - best).mean()
                rows.append(
                    (
                        scores,
                        rate,
                        n,
                        f"{omegas.mean():+.4f}",
                        f"{omegas.std() / np.sqrt(count):.4f}",
                        float((np.abs(omegas) <= reach).mean()),
                        f"{naive:+.3f}",
                        f"{gap:+.3f}",
                    )
                )
    show(
        "Omega where nothing is to be gained, k = 3 (aim |E| <= .01), beside B minus the individual"
        " that was best on the same tasks, and the oracle gap",
        ["scores", "rate", "n", "E[omega]", "se", "coverage of 0", "same tasks", "oracle gap"],
        rows,
    )


def power_table(seed: int, runs: int) -> None:
    """Power of delta's test at the planned number of tasks, the sd known (aim .80)."""
    rows = []
    for scores in ("binary", "graded"):
        for rate, gamma in ((0.6, 1.1), (0.6, 1.2), (0.3, 1.5)):
            rng = np.random.default_rng(
                [seed, 7000, scores == "binary", int(100 * rate), int(100 * gamma)]
            )
            pilot = World(scores, rate, gamma, (1,))
            alone, together = pilot.draw_rates(rng, 400_000)
            difference = pilot.draw_means(rng, together) - pilot.draw_means(rng, alone)
            sd, delta = float(difference.std()), rate * (gamma - 1.0)
            n = required_tasks(sd, delta)
            world = World(scores, rate, gamma, (1,) * n)
            alone, together = world.draw_rates(rng, max(100, min(runs, ELEMENTS // n)))
            a = world.draw_means(rng, alone)
            b = world.draw_means(rng, together)
            found = paired_moments(build_clusters(world.groups), b, a).p_above(1.0) < ALPHA
            failed = np.concatenate([b, np.zeros((len(b), 1))], axis=-1)
            expected = np.concatenate([a, a.mean(axis=-1, keepdims=True)], axis=-1)
            clusters = build_clusters((*world.groups, "unseen"))
            sturdy = paired_moments(clusters, failed, expected).p_above(1.0) < ALPHA
            rows.append(
                (scores, rate, f"{delta:.2f}", sd, n, float(found.mean()), float(sturdy.mean()))
            )
    show(
        "Power at the planned number of tasks",
        ["scores", "rate of A", "delta", "sd", "n", "power", "with a failure"],
        rows,
    )


TABLES: dict[str, Callable[[int, int], None]] = {
    "coverage": coverage_tables,
    "degrees": degrees_table,
    "bootstrap": bootstrap_table,
    "false": false_verdicts_table,
    "skewed": skewed_table,
    "several": several_strategies_table,
    "omega": omega_table,
    "power": power_table,
}


def main() -> None:
    """Print versions, seed and all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=40_000, help="trials a cell, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    arguments = parser.parse_args()
    seed, runs = arguments.seed, arguments.runs
    begin = time.process_time()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__};"
        f" seed {seed}, {runs} trials a cell at most, {ELEMENTS} / n for many tasks"
    )
    for name in arguments.tables:
        TABLES[name](seed, runs)
    print(f"\n{time.process_time() - begin:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
