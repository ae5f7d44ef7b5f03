"""From the records of a study to its rows: figures of each config, and what can be said beside the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import YoloAttnError
from ..evaluation import images
from . import latency
from .plan import Plan, Run
from .results import Results, of_study
from .statistics import compare
from .wording import Words

__all__ = ["METRIC", "judged", "lines", "rows", "table"]

METRIC = "mAP50-95"
MEANS = ("mAP50", "AP_small", "AP_medium", "AP_large", "precision", "recall")


def rows(study: Path, plan: Plan) -> list[dict[str, Any]]:
    """Return one row for each config of a study, the baseline first.

    Raises:
        YoloAttnError: No run of the baseline has finished.
    """
    return judged(of_study(study, plan))


def judged(results: Results) -> list[dict[str, Any]]:
    """Return one row for each config, the baseline first.

    Raises:
        YoloAttnError: No run of the baseline has finished.
    """
    values = results.values(METRIC)
    if not values[results.baseline]:
        raise YoloAttnError(
            f"{results.folder}: no run of the baseline {results.baseline} has finished: nothing to compare with"
        )
    told_of = {c.name: c for c in compare(values, results.baseline)}
    out = []
    for name, config in results.configs.items():
        mine = {r: d for r, d in results.records.items() if r.config == name}
        good = list(results.finished(name).values())
        scores = list(values[name].values())
        row: dict[str, Any] = {
            "config": name,
            "modules": list(config.modules),
            "places": list(config.places),
            "starts": list(config.starts),
            "finished": len(good),
            "failed": [f"{r.name}: {d.get('reason')}" for r, d in mine.items() if d["status"] == "failed"],
            "split": good[0].get("split") if good else None,
            "images": good[0].get("images") if good else None,
            METRIC: float(np.mean(scores)) if scores else None,
            "deviation": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        }
        for figure in MEANS:
            row[figure] = _mean([(d.get("figures") or {}).get(figure) for d in good])
        fifty = [v for d in good if (v := (d.get("figures") or {}).get("mAP50")) is not None and math.isfinite(v)]
        row["mAP50_deviation"] = float(np.std(fifty, ddof=1)) if len(fifty) > 1 else None
        row["classes"] = _by_class(good)
        for key in ("parameters", "gflops"):
            row[key] = good[0].get(key) if good else None
        row["minutes"] = _mean([d["seconds"] / 60 for d in good if d.get("seconds") is not None])
        row.update(_latency(results, name))
        told = told_of.get(name)
        if told is not None:
            row.update({k: _plain(v) for k, v in asdict(told).items() if k not in ("name", "mean", "deviation")})
            row.update(_over_images(results, values, name))
        out.append(row)
    return out


def _latency(results: Results, name: str) -> dict[str, Any]:
    found = results.latency.get(name, latency.Latency())
    return {
        "latency_ms": _plain(found.milliseconds),
        "latency_spread": _plain(found.spread),
        "latency_ratio": _plain(found.ratio),
        "latency_low": _plain(found.ratio_low),
        "latency_high": _plain(found.ratio_high),
    }


def _by_class(good: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    held = [(d.get("figures") or {}).get("classes") or {} for d in good]
    return {n: _mean([h.get(n) for h in held]) for n in (held[0] if held else {})}


def _mean(values: Sequence[Any]) -> float | None:
    there = [v for v in values if v is not None and math.isfinite(v)]
    return float(np.mean(there)) if there else None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _over_images(results: Results, values: dict[str, dict[int, float]], name: str) -> dict[str, Any]:
    """The interval of the difference over images, of the first seed that both have."""
    common = sorted(set(values[results.baseline]) & set(values[name]))
    found = [results.matches(Run(config, common[0])) for config in (name, results.baseline)] if common else []
    pair = [m for m in found if m is not None]
    if len(pair) < 2 or pair[0].images != pair[1].images:
        return {"images_low": None, "images_high": None, "images_seed": None}
    ends = images.interval(*pair) or (None, None)
    return {"images_low": ends[0], "images_high": ends[1], "images_seed": common[0]}


def table(found: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return head and cells of the table for a terminal."""
    head = [
        "config", "runs", METRIC, "mAP50", "small", "medium", "large", "parameters", "GFLOPs", "latency", "minutes"
    ]  # fmt: skip
    cells = []
    for row in found:
        score = number(row[METRIC])
        if row["deviation"] is not None:
            score += f" +- {row['deviation']:.3f}"
        sizes = [number(row[k]) for k in ("mAP50", "AP_small", "AP_medium", "AP_large")]
        count = "-" if row["parameters"] is None else f"{row['parameters']:,}"
        runs = f"{row['finished']}" + (f" ({len(row['failed'])} failed)" if row["failed"] else "")
        ratio = number(row["latency_ratio"], 2)
        if row["latency_low"] != row["latency_high"]:
            ratio += f" ({row['latency_low']:.2f} to {row['latency_high']:.2f})"
        cells.append(
            [row["config"], runs, score, *sizes, count, number(row["gflops"], 2), ratio, number(row["minutes"], 1)]
        )
    return head, cells


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure as tables show it; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def lines(found: Sequence[dict[str, Any]], language: str = "en") -> list[str]:
    """Return the verdict on each config beside the baseline, a line each."""
    words = Words(language)
    return [f"{row['config']}{words('colon')}{words.verdict(row)}" for row in found[1:]]
