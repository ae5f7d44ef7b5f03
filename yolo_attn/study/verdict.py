"""From the records of a study to its rows: figures of each config, and what can be said beside the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation import images
from . import record, worker
from .plan import Plan, Run
from .statistics import MOST_SEEDS, SAME, UNTOLD, compare

__all__ = ["METRIC", "lines", "rows", "table"]

METRIC = "mAP50-95"
MEANS = ("mAP50", "AP_small", "AP_medium", "AP_large", "precision", "recall")


def rows(study: Path, plan: Plan) -> list[dict[str, Any]]:
    """Return one row for each config, the baseline first.

    Raises:
        YoloAttnError: No run of the baseline has finished.
    """
    records = record.read_all(study, plan)
    values = record.values(study, plan, METRIC)
    judged = {c.name: c for c in compare(values, plan.baseline)}
    out = []
    for name in plan.configs:
        mine = {r: d for r, d in records.items() if r.config == name}
        good = [d for d in mine.values() if d["status"] == "finished"]
        scores = list(values[name].values())
        row: dict[str, Any] = {
            "config": name,
            "finished": len(good),
            "failed": [f"{r.name}: {d.get('reason')}" for r, d in mine.items() if d["status"] == "failed"],
            "split": good[0].get("split") if good else None,
            "images": good[0].get("images") if good else None,
            METRIC: float(np.mean(scores)) if scores else None,
            "deviation": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        }
        for figure in MEANS:
            row[figure] = _mean([(d.get("figures") or {}).get(figure) for d in good])
        row["classes"] = _by_class(good)
        for key in ("parameters", "gflops"):
            row[key] = good[0].get(key) if good else None
        row["minutes"] = _mean([d.get("seconds", 0) / 60 for d in good])
        told = judged.get(name)
        if told is not None:
            row.update({k: _plain(v) for k, v in asdict(told).items() if k not in ("name", "mean", "deviation")})
            row.update(_over_images(study, plan, values, name))
        out.append(row)
    return out


def _by_class(good: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    held = [(d.get("figures") or {}).get("classes") or {} for d in good]
    return {n: _mean([h.get(n) for h in held]) for n in (held[0] if held else {})}


def _mean(values: Sequence[Any]) -> float | None:
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _over_images(study: Path, plan: Plan, values: dict[str, dict[int, float]], name: str) -> dict[str, Any]:
    """The interval of the difference over images, of the first seed that both have."""
    common = sorted(set(values[plan.baseline]) & set(values[name]))
    if not common:
        return {"images_low": None, "images_high": None, "images_seed": None}
    pair = []
    for config in (name, plan.baseline):
        truth, found = worker.unpack(record.folder_of(study, Run(config, common[0])) / worker.DETECTIONS)
        pair.append(images.match(truth, found, 1 + int(max((t[:, 4].max() for t in truth if len(t)), default=0))))
    ends = images.interval(*pair) or (None, None)
    return {"images_low": ends[0], "images_high": ends[1], "images_seed": common[0]}


def table(found: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return head and cells of the table for a terminal."""
    head = ["config", "runs", METRIC, "mAP50", "small", "medium", "large", "parameters", "GFLOPs", "minutes"]
    cells = []
    for row in found:
        score = _number(row[METRIC])
        if row["deviation"] is not None:
            score += f" +- {row['deviation']:.3f}"
        sizes = [_number(row[k]) for k in ("mAP50", "AP_small", "AP_medium", "AP_large")]
        count = "-" if row["parameters"] is None else f"{row['parameters']:,}"
        runs = f"{row['finished']}" + (f" ({len(row['failed'])} failed)" if row["failed"] else "")
        cells.append([row["config"], runs, score, *sizes, count, _number(row["gflops"], 2), _number(row["minutes"], 1)])
    return head, cells


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the verdict on each config beside the baseline, a line each."""
    return [f"{row['config']}: {_verdict(row)}" for row in found[1:]]


def _verdict(row: dict[str, Any]) -> str:
    text = str(row["verdict"])
    if row["difference"] is None:
        return f"{text}: {row['why']}"
    text += f", {METRIC} {row['difference']:+.3f}"
    if row["verdict"] == UNTOLD:
        text += f": {row['why']}"
    else:
        low, high = row["low"], row["high"]
        text += f" ({low:+.3f} to {high:+.3f} over {row['seeds']} seeds), p = {row['p']:.3g}, after Holm {row['holm']:.3g}"
        text += f" ({row['method']})"
        if row["verdict"] == SAME:
            needed = row["seeds_to_tell"]
            if row["difference"] == 0:
                text += "; no number of seeds would tell no difference"
            elif needed is None:
                text += f"; more than {MOST_SEEDS} seeds would be needed to tell it"
            else:
                text += f"; about {needed} seeds would tell it"
    if row["images_low"] is not None:
        text += f". Over images, seed {row['images_seed']} alone: {row['images_low']:+.3f} to {row['images_high']:+.3f}"
    return text
