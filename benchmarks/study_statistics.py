"""What the statistics of `yolo-attn compare` hold, by simulation: false verdicts, power, coverage of intervals.

    python benchmarks/study_statistics.py                       # 10,000 studies a line, some minutes on one core
    python benchmarks/study_statistics.py --studies 1000 --sets 200

Every study is judged by the functions that `compare` itself calls.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this file's folder would hide Python's own `statistics`

import numpy as np  # after the line above

from yolo_attn.evaluation import images
from yolo_attn.study.statistics import ALPHA, Tested, family, holm

Judge = Callable[[Any], Sequence[float]]  # a table, (configs, seeds), to the p of each config but the first


def by_the_kit(table: Any) -> list[float]:
    """What `compare` judges by."""
    return [t.p for t in family(table)]


def by_paired_t(table: Any) -> list[float]:
    """The paired t test of each config alone."""
    return [family(table[[0, k]])[0].p for k in range(1, len(table))]


def draw(rng: np.random.Generator, spreads: Sequence[float], seeds: int, effects: Sequence[float] = ()) -> Any:
    """One study: what a seed does to all, and what it does to each config."""
    table = rng.standard_normal((len(spreads), seeds)) * np.asarray(spreads)[:, None] + rng.standard_normal(seeds)
    return table + np.asarray(effects)[:, None] if len(effects) else table


def family_wise(judge: Judge, spreads: Sequence[float], seeds: int, studies: int) -> float:
    """The share of studies without any effect in which some config is called better or worse."""
    rng = np.random.default_rng(0)
    return sum(min(holm(judge(draw(rng, spreads, seeds)))) < ALPHA for _ in range(studies)) / studies


def power(judge: Judge, configs: int, seeds: int, studies: int, effect: float) -> float:
    """The share of studies in which the first config's effect is seen at the 5 % level, before Holm's correction.

    Args:
        judge: What gives the p values.
        configs: How many, the baseline included.
        seeds: How many.
        studies: How many.
        effect: In standard deviations of a paired difference.
    """
    rng = np.random.default_rng(1)
    effects = [0, effect * 2**0.5, *[0] * (configs - 2)]
    return sum(judge(draw(rng, [1] * configs, seeds, effects))[0] < ALPHA for _ in range(studies)) / studies


def covered_over_seeds(configs: int, seeds: int, studies: int) -> float:
    """The share of configs whose 95 % interval over seeds holds the true difference, here 0."""
    from scipy import stats

    rng, good, count = np.random.default_rng(2), 0, 0
    for _ in range(studies):
        tests: list[Tested] = family(draw(rng, [1] * configs, seeds))
        good += sum(abs(t.difference) <= stats.t.isf(ALPHA / 2, t.df) * t.error for t in tests)
        count += len(tests)
    return good / count


def detections(rng: np.random.Generator, count: int, classes: int = 3) -> tuple[images.Matches, images.Matches]:
    """Two detectors on the same images, some images harder than others for both."""
    objects = rng.poisson(2, (count, classes)) * (rng.random((count, classes)) < 0.6)
    ease = rng.normal(0.8, 0.7, count)
    both = []
    for _ in range(2):
        found = []
        for c in range(classes):
            at = np.repeat(np.arange(count), objects[:, c])
            quality = 0.5 + 0.5 / (1 + np.exp(-(ease[at] + rng.normal(0, 0.8, len(at)))))  # IoU of the box, 0.5 to 1
            seen = rng.random(len(at)) < 0.85
            stray = rng.integers(0, count, rng.poisson(1.5 * count))
            image = np.concatenate([at[seen], stray])
            score = np.concatenate([rng.beta(4, 2, seen.sum()), rng.beta(2, 4, len(stray))])
            overlap = np.concatenate([quality[seen], np.zeros(len(stray))])
            order = np.argsort(-score, kind="stable")
            found.append(images.ClassMatches(image[order], overlap[order] >= images.IOUS[:, None], objects[:, c].astype(float)))
        both.append(images.Matches(count, found))
    return both[0], both[1]


def covered_over_images(sets: int, count: int = 150, *, difference: bool = False, distinct: bool = False) -> float:
    """The share of sets of images whose 95 % interval holds what the detector reaches on all images.

    Args:
        sets: How many sets.
        count: Images in each.
        difference: Of two detectors' difference, whose true value is 0.
        distinct: Leave out what is drawn twice, as it should not be done.
    """
    rng = np.random.default_rng(3)
    large, _ = detections(rng, 40_000)
    truth = 0.0 if difference else float(np.mean(images.ap(large, np.ones((1, large.images)))))
    good = 0
    for k in range(sets):
        one, other = detections(rng, count)
        if distinct:
            weights = rng.multinomial(count, np.full(count, 1 / count), 300) > 0
            low, high = np.percentile(np.nanmean(images.ap(one, weights), (1, 2)), (2.5, 97.5))
        else:
            low, high = images.interval(one, other if difference else None, sets=300, seed=k) or (0, 0)
        good += bool(low <= truth <= high)
    return good / sets


SPREADS = {
    "equal spreads": [1, 1, 1, 1, 1],
    "a candidate of twice the spread": [1, 1, 1, 1, 2],
    "a baseline of twice the spread": [2, 1, 1, 1, 1],
    "a candidate of four times the spread": [1, 1, 1, 1, 4],
    "spreads from 0.5 to 2": [0.5, 0.875, 1.25, 1.625, 2],
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies a line (10,000)")
    parser.add_argument("--sets", type=int, default=1000, help="simulated sets of images a line (1000)")
    args = parser.parse_args()
    n = args.studies

    def line(what: str, *values: float) -> None:
        print(f"{what:<66}" + "".join(f"{100 * v:>10.1f}" for v in values), flush=True)

    print(f"{'percent':<66}{'the kit':>10}{'paired t':>10}")
    for seeds in (3, 5):
        for name, spreads in SPREADS.items():
            what = f"any false verdict, 5 configs, {seeds} seeds, {name}"
            line(what, *(family_wise(judge, spreads, seeds, n) for judge in (by_the_kit, by_paired_t)))
    for seeds in (3, 5):
        what = f"power at 1.5 sd of a paired difference, 5 configs, {seeds} seeds"
        line(what, *(power(judge, 5, seeds, n, 1.5) for judge in (by_the_kit, by_paired_t)))
    line("interval over 3 seeds holds the truth (95)", covered_over_seeds(5, 3, n))
    line("interval over 150 images holds the truth (95)", covered_over_images(args.sets))
    line("interval over 150 images of a difference", covered_over_images(args.sets, difference=True))
    line("interval over 30 images of a difference", covered_over_images(args.sets, 30, difference=True))
    line("the same without what is drawn twice, which is wrong", covered_over_images(args.sets, distinct=True))


if __name__ == "__main__":
    main()
