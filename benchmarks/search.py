"""What `yolo-attn search` finds, by simulation through its own code: false finds, finds, and cost beside the full grid.

    python benchmarks/search.py                     # 400 searches a line, some minutes on one core
    python benchmarks/search.py --searches 50

A simulated training takes the place of a real one, and nothing else is replaced: rungs, records, choice, confirmation and
verdict are those of the command. Its figure has a standard deviation of 1 over seeds. What is seen of it at a fraction f
of the epochs has the same spread, correlates with the final figure by the square root of f, and shows (1 + f) / 2 of a
candidate's effect; the lines "early figures tell little" let it show f of the effect alone. An effect of two standard
deviations is 2 of a paired difference, the measure of `benchmarks/study_statistics.py` and of the test; the harder one, 2
of a single run, stands below it.

The full grid trains every candidate and the baseline with the number of seeds that finds the same effect four times in
five by the same verdict, over the same number of candidates; that number is found by simulation as well.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import optuna

from yolo_attn.study import jobs, search_run
from yolo_attn.study.plan import Run
from yolo_attn.study.search_course import Course, Space
from yolo_attn.study.search_ledger import Ledger
from yolo_attn.study.search_plan import Budget
from yolo_attn.study.statistics import ALPHA, compare, family, holm

EPOCHS = 30
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # locks are files; a search takes hundreds
PAIRED = 2**0.5  # the standard deviation of a paired difference, in those of a run


class Simulated:
    """Trains nothing, and draws what a training would show.

    Args:
        number: Of the simulation.
        effects: By candidate, in standard deviations of a run; 0 where absent.
        early: How much of an effect a fraction of the epochs shows.
    """

    def __init__(self, number: int, effects: dict[str, float], early: Any) -> None:
        self.rng = np.random.default_rng([7, number])
        self.effects, self.early = effects, early
        self.noise: dict[Run, float] = {}
        self.blocks: dict[int, float] = {}
        self.cost = 0.0

    def final(self, run: Run) -> float:
        """What a run reaches: what the seed does to all, what it does to this config, and the config's effect."""
        noise = self.noise.setdefault(run, float(self.rng.standard_normal()))
        return 20 + self.blocks.setdefault(run.seed, float(self.rng.standard_normal())) + noise + self.effects.get(run.config, 0.0)

    def train(self, place: Any, run: Run, begin: int, until: int) -> search_run.Trained:
        self.cost += (until - begin) / EPOCHS
        fraction = until / EPOCHS
        effect = self.effects.get(run.config, 0.0)
        final, seen = self.final(run) - effect, fraction**0.5
        block = 20 + self.blocks[run.seed]
        noise = seen * (final - block) + (1 - seen**2) ** 0.5 * float(self.rng.standard_normal())
        return search_run.Trained(block + noise + effect * self.early(fraction), 60.0 * (until - begin))

    def confirm(self, configs: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
        self.cost += len(configs) * len(seeds)
        values = {c: {s: self.final(Run(c, s)) for s in seeds} for c in configs}
        return [{"config": configs[0]}, *({**asdict(c), "config": c.name} for c in compare(values, configs[0]))]


def space(candidates: int) -> Space:
    """Modules in four places."""
    choices = {
        f"m{k // 4}_p{k % 4}": {"module": f"m{k // 4}", "where": f"p{k % 4}", "start": "identity"} for k in range(candidates)
    }
    return Space("base", choices)


def half(fraction: float) -> float:
    return (1 + fraction) / 2


def little(fraction: float) -> float:
    return fraction


def one(number: int, candidates: int, budget: float, effect: float, early: Any = half) -> tuple[str | None, float]:
    """Search once; return the answer and the cost in full trainings. The effect is that of another candidate each time."""
    what = space(candidates)
    planted = {list(what.choices)[number % candidates]: effect} if effect else {}
    doer = Simulated(number, planted, early)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        ledger = Ledger(Path(folder), optuna.storages.InMemoryStorage())
        found = search_run.carry_out(Path(folder), Course(what, Budget(runs=budget), EPOCHS, ledger), doer, [jobs.Here()])
    return found["answer"], doer.cost


def many(searches: int, candidates: int, budget: float, effect: float, early: Any = half) -> tuple[float, float, float]:
    """Return the share of searches that answer the planted candidate, that answer "none", and the mean cost."""
    names = list(space(candidates).choices)
    found = [one(k, candidates, budget, effect, early) for k in range(searches)]
    right = [a == names[k % candidates] for k, (a, _) in enumerate(found)] if effect else [False]
    return float(np.mean(right)), float(np.mean([a is None for a, _ in found])), float(np.mean([c for _, c in found]))


def grid(candidates: int, effect: float, grids: int = 400) -> int:
    """Return with how many seeds a full grid finds the effect four times in five."""
    for seeds in range(2, 40):
        rng, hits = np.random.default_rng(3), 0
        for _ in range(grids):
            table = rng.standard_normal((candidates + 1, seeds))
            table[1] += effect
            tests = family(table)
            hits += holm([t.p for t in tests])[0] < ALPHA and tests[0].difference > 0
        if hits >= 0.8 * grids:
            return seeds
    raise RuntimeError("no number of seeds up to 40")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=400, help="simulated searches a line (400)")
    args = parser.parse_args()
    logging.getLogger("yolo_attn").setLevel(logging.ERROR)
    print(f"{'':<58}{'found':>8}{'none':>8}{'cost':>8}{'grid':>8}{'ratio':>8}")
    with contextlib.suppress(KeyboardInterrupt):
        for candidates, budget in ((24, 60), (36, 90)):
            for what, effect, early in (
                ("no effect", 0.0, half),
                ("one of 2 sd of a paired difference", 2 * PAIRED, half),
                ("the same, early figures tell little", 2 * PAIRED, little),
                ("one of 2 sd of a run", 2.0, half),
            ):
                found, none, cost = many(args.searches, candidates, budget, effect, early)
                full = grid(candidates, effect) * (candidates + 1) if effect else None
                name = f"{candidates} candidates, budget {budget}, {what}"
                rest = f"{full:>8}{cost / full:>8.2f}" if full else ""
                print(f"{name:<58}{found if effect else float('nan'):>8.3f}{none:>8.3f}{cost:>8.1f}{rest}", flush=True)


if __name__ == "__main__":
    main()
