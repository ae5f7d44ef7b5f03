"""The figures of gates. Each function returns a `matplotlib` figure, or None where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..pages import figures
from .gate_classes import ByClass
from .gate_test import Measured
from .gate_words import Words, summary
from .recording import Gate

__all__ = ["channels", "frozen", "maps", "spreads"]

COLUMNS = 3


def _panels(count: int, width: float, height: float, columns: int = COLUMNS) -> tuple[Any, list[Any]]:
    columns = min(columns, count)
    lines = math.ceil(count / columns)
    figure = figures.new(width * columns, height * lines)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, list(grid[:count])


def channels(measured: Measured, classes: Sequence[int], words: Words) -> Any:
    """Mean gate of each channel, over all images and over those that hold each class (SE paper, figures 6 and 7)."""
    held: list[tuple[Gate, ByClass | None]] = [
        (g, row.classes[k] if row.classes else None) for row in measured.rows for k, g in enumerate(row.gates) if g.axes != "spatial"
    ]
    if not held:
        return None
    figure, panels = _panels(len(held) + 1, 3.2, 2.3)
    for axes, (gate, by_class) in zip(panels, held):
        mean, spread = (t.numpy() for t in (_of_channels(gate, gate.mean), _of_channels(gate, gate.spread)))
        order = np.argsort(mean, kind="stable")
        x = np.arange(len(mean))
        axes.fill_between(x, (mean - spread)[order], (mean + spread)[order], color=figures.COLOURS[0], alpha=0.15, linewidth=0)
        axes.plot(x, mean[order], color=figures.COLOURS[0], label=words("all"), linewidth=1.4)
        for k, c in enumerate(classes):
            if by_class is None:
                break
            look = figures.look(k + 1)
            axes.plot(x, by_class.means[c][order], label=measured.names[c], linewidth=0.8, color=look["color"], linestyle=look["linestyle"])
        axes.set_title(gate.location, loc="left")
        axes.set_xlabel(words("channels"))
        axes.set_ylabel(words("gate_axis"))
    panels[-1].axis("off")  # a panel for the legend, which then hides nothing
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="upper left")
    return figure


def _of_channels(gate: Gate, cells: Any) -> Any:
    return cells.mean((1, 2))


def maps(measured: Measured, words: Words) -> Any:
    """Mean and spread in each cell, of gates that have a number for each position."""
    held = [g for row in measured.rows for g in row.gates if g.axes != "channel" and min(g.mean.shape[1:]) > 1]
    if not held:
        return None
    figure, panels = _panels(2 * len(held), 2.4, 2.3, columns=4)
    for k, gate in enumerate(held):
        for axes, cells, key in zip(panels[2 * k :], (gate.mean, gate.spread), ("mean", "spread")):
            ends = {"vmin": 0.0, "vmax": max(float(cells.mean(0).max()), measured.tolerance)} if key == "spread" else {}
            image = axes.imshow(cells.mean(0).numpy(), **ends)
            axes.set_title(f"{gate.location}\n{words(key)}", loc="left", fontsize=7)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def spreads(measured: Measured, words: Words) -> Any:
    """The spread of each channel or cell, by depth."""
    gates = [g for row in measured.rows for g in row.gates]
    figure = figures.new(max(4.0, 1.0 + 0.9 * len(gates)), 3.4)
    axes = figure.subplots()
    top = max(float(g.spread.max()) for g in gates)
    for k, gate in enumerate(gates):
        spread = np.sort(gate.spread.flatten().numpy())
        if len(spread) > 600:  # of a map every so many, the least and the greatest among them
            spread = spread[np.linspace(0, len(spread) - 1, 600).astype(int)]
        shift = (np.arange(len(spread)) * 0.618034 % 1 - 0.5) * 0.5  # golden steps: dots of near values lie apart
        axes.plot(k + shift, spread, linestyle="", marker="o", markersize=1.6, color=figures.COLOURS[1], alpha=0.7)
        axes.plot([k - 0.3, k + 0.3], [np.median(spread)] * 2, color=figures.COLOURS[0])
    axes.axhline(measured.tolerance, linestyle="--", linewidth=1, color=figures.COLOURS[2])
    axes.set_xticks(range(len(gates)), [g.location.replace(" (", "\n(") for g in gates], rotation=30, ha="right", fontsize=7)
    axes.set_ylim(0, max(top, measured.tolerance) * 1.08)
    axes.set_ylabel(words("spread"))
    return figure


def frozen(measured: Measured, words: Words) -> Any:
    """The change of mAP with frozen gates and its interval, a line each."""
    lines = [line for line in summary(measured, words) if line[2] is not None]
    if not lines:
        return None
    figure = figures.new(6.4, 0.9 + 0.32 * len(lines))
    axes = figure.subplots()
    for k, (_, _, change, low, high) in enumerate(lines):
        y = len(lines) - k
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=figures.COLOURS[1], linewidth=2, solid_capstyle="butt")
        axes.plot([change], [y], marker="o", color=figures.COLOURS[0])
    axes.axvline(0, color=figures.COLOURS[0], linewidth=0.8)
    axes.set_yticks([len(lines) - k for k in range(len(lines))], [line[0] for line in lines])
    axes.set_xlabel(words("change_axis"))
    return figure
