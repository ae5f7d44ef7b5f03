"""The figures of a report. Each function returns a `matplotlib` figure, or None where there is nothing to draw."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import FileError, YoloAttnError
from ..evaluation import images
from ..pages import figures
from . import logs
from .results import Results
from .wording import Words

__all__ = ["MOST_CLASSES", "classes", "latency", "parameters", "precision_recall", "recall_levels", "training"]

METRIC = "mAP50-95"
MOST_CLASSES = 20  # in one figure: those that differ most
Rows = Sequence[Mapping[str, Any]]


def gid(config: str, mark: str = "curve") -> str:
    """Return the id of a config's curve in an SVG."""
    return f"{mark}-" + re.sub(r"[^\w.-]", "_", config)


def _axes(width: float = 6.4, height: float = 3.8, columns: int = 1) -> tuple[Any, Any]:
    figure = figures.new(width, height)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)  # beside the axes: it hides nothing


def training(results: Results, words: Words) -> Any:
    """Validation and loss, epoch by epoch: mean over seeds, band from the lowest to the highest."""
    held = {config: _logs(results, config) for config in results.configs}
    if not any(held.values()):
        return None
    figure, panels = _axes(9, 3.6, 2)
    drawn = {"mAP50-95": words("val_curve", metric=METRIC), "train loss": words("train_loss")}
    for axes, mark, (column, label) in zip(panels, ("curve", "loss"), drawn.items()):
        for k, (config, found) in enumerate(held.items()):
            epochs, curves = _aligned([(log.epochs, log.columns[column]) for log in found if column in log.columns])
            if len(epochs):
                look = figures.look(k)
                every = max(len(epochs) // 8, 1)
                axes.plot(epochs, _column(np.nanmean, curves), label=config, markevery=every, gid=gid(config, mark), **look)
                if len(curves) > 1:
                    low, high = _column(np.nanmin, curves), _column(np.nanmax, curves)
                    axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.set_xlabel(words("epoch"))
        axes.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 1.5
        axes.set_ylabel(label)
    _legend(panels[-1])
    return figure


def _column(function: Any, curves: Any) -> Any:
    """A statistic over runs of each epoch; NaN where no run has a number."""
    there = ~np.isnan(curves).all(0)
    out = np.full(curves.shape[1], np.nan)
    out[there] = function(curves[:, there], axis=0)
    return out


def _logs(results: Results, config: str) -> list[logs.Log]:
    out = []
    for run in results.finished(config):
        try:
            out.append(logs.read(results.places[run] / logs.FILE))
        except FileError:  # what a run lacks is said where runs are read
            continue
    return out


def _aligned(curves: Sequence[tuple[Sequence[int], Sequence[float]]]) -> tuple[Any, Any]:
    """Epochs that any run has, and (runs, epochs) with NaN where a run has none."""
    epochs = sorted({e for axis, _ in curves for e in axis})
    table = np.full((len(curves), len(epochs)), np.nan)
    for row, (axis, values) in zip(table, curves):
        row[np.searchsorted(epochs, axis)] = values
    return np.array(epochs), table


def recall_levels(matches: images.Matches, iou: int = 0) -> Any:
    """Return the interpolated precision at 101 recalls, (101,), mean over the classes that have objects.

    Args:
        matches: What a detector found.
        iou: Which of :data:`yolo_attn.evaluation.images.IOUS`; the first is 0.5.
    """
    curves = []
    for c in matches.classes:
        objects = c.objects.sum()
        if objects:
            right = np.cumsum(c.hit[iou])
            precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
            at = np.searchsorted(right / objects, images.RECALLS, side="left")
            curves.append(np.append(precision, 0.0)[np.minimum(at, len(precision))])
    return np.mean(curves, 0) if curves else np.zeros(len(images.RECALLS))


def precision_recall(results: Results, words: Words) -> Any:
    """Precision against recall at IoU 0.5 of every config, mean over classes and seeds."""
    figure, (axes,) = _axes()
    for k, config in enumerate(results.configs):
        curves = []
        for run in results.finished(config):
            try:
                matches = results.matches(run)
            except YoloAttnError:  # damaged: an error where a verdict depends on it
                matches = None
            if matches is not None:
                curves.append(recall_levels(matches))
        if curves:
            axes.plot(images.RECALLS, np.mean(curves, 0), label=config, markevery=10, gid=gid(config), **figures.look(k))
    axes.set(xlabel=words("recall"), ylabel=words("precision"), xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes)
    return figure if axes.lines else None


def parameters(rows: Rows, words: Words) -> Any:
    """mAP50-95 against the number of parameters."""
    points = [(r["parameters"] / 1e6 if r["parameters"] else None, None) for r in rows]
    return _against(rows, points, words("parameters_m"))


def latency(rows: Rows, words: Words) -> Any:
    """mAP50-95 against the ratio of latency to the baseline's."""
    points = [
        (r["latency_ratio"], None if r["latency_ratio"] is None else
         [[r["latency_ratio"] - r["latency_low"]], [r["latency_high"] - r["latency_ratio"]]])
        for r in rows
    ]  # fmt: skip
    return _against(rows, points, words("latency_axis", baseline=rows[0]["config"]))


def _against(rows: Rows, points: Sequence[tuple[float | None, Any]], label: str) -> Any:
    figure, (axes,) = _axes()
    some = False
    for k, (row, (x, spread)) in enumerate(zip(rows, points)):
        if x is not None and row[METRIC] is not None:
            some = True
            look = figures.look(k)
            bars = axes.errorbar(
                x, row[METRIC], xerr=spread, yerr=row["deviation"], color=look["color"], marker=look["marker"], capsize=3,
                elinewidth=1, linestyle="", label=row["config"],
            )  # fmt: skip
            bars.lines[0].set_gid(gid(row["config"]))
    axes.set_xlabel(label)
    axes.set_ylabel(METRIC)
    axes.margins(0.15)
    axes.ticklabel_format(axis="x", useOffset=False)
    _legend(axes)
    return figure if some else None


def class_differences(results: Results) -> dict[str, dict[str, list[float]]]:
    """Return the paired differences of mAP50-95 over seeds, of each config but the baseline, by class."""
    base = {r.seed: _classes(d) for r, d in results.finished(results.baseline).items()}
    out: dict[str, dict[str, list[float]]] = {}
    for config in list(results.configs)[1:]:
        out[config] = {}
        for run, d in results.finished(config).items():
            for name, value in _classes(d).items():
                other = base.get(run.seed, {}).get(name)
                if value is not None and other is not None:
                    out[config].setdefault(name, []).append(value - other)
    return out


def _classes(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return (record.get("figures") or {}).get("classes") or {}


def classes(results: Results, words: Words) -> Any:
    """The difference of each class to the baseline, of every config; the classes that differ most where there are many."""
    found = class_differences(results)
    names = list(dict.fromkeys(n for held in found.values() for n in held))
    if not names:
        return None
    largest = {n: max(abs(float(np.mean(held[n]))) for held in found.values() if n in held) for n in names}
    shown = sorted(sorted(names, key=lambda n: -largest[n])[:MOST_CLASSES], key=names.index)
    height = 1.0 + len(shown) * (0.18 + 0.12 * len(found))
    figure, (axes,) = _axes(6.4, min(max(height, 2.2), 20))
    axes.axvline(0, color=figures.INK, linewidth=0.8)
    step = 0.8 / max(len(found), 1)
    for k, (config, held) in enumerate(found.items()):
        look = figures.look(k + 1)
        rows = [(i, held[n]) for i, n in enumerate(shown) if n in held]
        if not rows:
            continue
        bars = axes.errorbar(
            [float(np.mean(v)) for _, v in rows],
            [i + (k - (len(found) - 1) / 2) * step for i, _ in rows],
            xerr=[float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for _, v in rows],
            color=look["color"], marker=look["marker"], linestyle="", capsize=2, elinewidth=1, label=config,
        )  # fmt: skip
        bars.lines[0].set_gid(gid(config))
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(words("difference_of", metric=METRIC, baseline=results.baseline))
    _legend(axes)
    return figure
