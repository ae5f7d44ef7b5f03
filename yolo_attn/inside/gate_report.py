"""Write what was measured of gates: `gates.html`, its figures as SVG, `gates.csv`, and the numbers for JSON."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import expand, write_text
from ..pages import figures
from ..pages.html import Cell, Page
from . import gate_drawing
from .gate_test import Measured, Row
from .gate_words import Words, sentence, summary
from .recording import Gate

__all__ = ["as_json", "folder", "write"]

PAGE, TABLE = "gates.html", "gates.csv"
FIGURES = ("gates", "maps", "spread", "frozen")
OURS = {PAGE, TABLE, *(f"{n}.svg" for n in FIGURES)}


def folder(name: str | os.PathLike[str]) -> Path:
    """Return the folder to write into; :func:`write` makes it.

    Raises:
        FileError: It is a file, or holds other files.
    """
    path = Path(os.path.abspath(expand(str(name))))
    if path.is_dir() and not (path / PAGE).is_file() and {p.name for p in path.iterdir() if p.name[0] != "."} - OURS:
        raise FileError(f"{path} holds files and no {PAGE}. Choose a new or an empty folder: -o FOLDER")
    if path.exists() and not path.is_dir():
        raise FileError(f"{path} is a file. Choose a folder: -o FOLDER")
    return path


def write(measured: Measured, name: str, target: Path, classes: Sequence[int], language: str = "en") -> Path:
    """Write page, figures and table into a folder and return the page.

    Args:
        measured: What was measured.
        name: Of the detector's file.
        target: The folder.
        classes: Indices of the classes to draw.
        language: ``en`` or ``zh``.

    Raises:
        FileError: The disk refuses, or no font has the characters.
    """
    words = Words(language)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    with figures.style(words.characters, "".join(measured.names)):
        drawn = {
            "gates": gate_drawing.channels(measured, classes, words),
            "maps": gate_drawing.maps(measured, words),
            "spread": gate_drawing.spreads(measured, words),
            "frozen": gate_drawing.frozen(measured, words),
        }
        for key, figure in drawn.items():
            if figure is None:  # of an earlier run, when there was something to draw
                (target / f"{key}.svg").unlink(missing_ok=True)
            else:
                figures.save(figure, target / key, ("svg",))
        inline = {key: figures.inline(figure, key) for key, figure in drawn.items() if figure is not None}
    write_text(target / TABLE, _csv(measured))
    page = target / PAGE
    _page(measured, name, inline, words).write(page)
    return page


def _page(measured: Measured, name: str, inline: dict[str, str], words: Words) -> Page:
    page = Page(words("title", name=name), words.language)
    page.paragraph(words("about", images=measured.images, split=measured.split, tolerance=measured.tolerance), note=True)
    for note in measured.notes:
        page.paragraph(note, note=True)
    page.points([sentence(row, words) for row in measured.rows])
    lines = summary(measured, words)
    if lines:
        page.heading(words("frozen"))
        page.paragraph(words("frozen_about", train=measured.train, images=measured.images, split=measured.split), note=True)
        page.table([words(k) for k in ("way", "map", "change", "interval")], [_frozen_cells(line) for line in lines])
        page.figure(inline["frozen"], words("fig_frozen"))
    page.heading(words("rows"))
    page.table(*_table(measured, words))
    if any(c.share is not None for row in measured.rows for c in row.classes):
        page.paragraph(words("class_test"), note=True)
    for key in ("gates", "maps", "spread"):
        if key in inline:
            page.figure(inline[key], words(f"fig_{key}"))
    if measured.without:
        page.heading(words("without"))
        page.points([f"{layer}: {why}" for layer, why in measured.without.items()])
    return page


def _frozen_cells(line: tuple[str, float, float | None, float | None, float | None]) -> list[Cell]:
    what, value, change, low, high = line
    sign = "+" if change is not None else ""
    interval = "-" if low is None or high is None else f"{low:{sign}.4f} … {high:{sign}.4f}"
    return [Cell(what), Cell(f"{value:.4f}", value), Cell("-" if change is None else f"{change:+.4f}", change), Cell(interval)]


def _table(measured: Measured, words: Words) -> tuple[list[str], list[list[Cell]]]:
    keys = ["location", "for", "how", "mean", "spread", "still", "dead", "saturated", "by_class", "verdict"]
    body = []
    for row in measured.rows:
        for k, gate in enumerate(row.gates):
            by = row.classes[k] if row.classes else None
            share = "-" if by is None or by.share is None else f"{by.share:.0%} (p = {by.p:.3f})"
            parts = {n: _part(gate, n) for n in ("dead", "saturated")}
            body.append(
                [
                    Cell(gate.location), Cell(words(gate.axes)), Cell(words(gate.how)), Cell(f"{gate.number:.3f}", gate.number),
                    Cell(f"{_spread(gate):.4f}", _spread(gate)), Cell(f"{gate.still(row.tolerance):.0%}", gate.still(row.tolerance)),
                    *(Cell(f"{v:.0%}", v) for v in parts.values()), Cell(share, None if by is None else by.share),
                    Cell(words(row.verdict)),
                ]
            )  # fmt: skip
    return [words(k) for k in keys], body


def _spread(gate: Gate) -> float:
    return float(gate.spread.mean())


def _part(gate: Gate, name: str) -> float:
    return float(getattr(gate, name).double().mean())


def _csv(measured: Measured) -> str:
    """One line for each channel, or each cell, of each gate."""
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    out.writerow(["gate", "row", "channel", "y", "x", "mean", "spread", "least", "most", "dead", "saturated", *measured.names])
    for row in measured.rows:
        for k, gate in enumerate(row.gates):
            by = row.classes[k].means if row.classes else None
            held = [t.mean((1, 2)) if gate.axes == "value" else t.flatten() for t in _columns(gate)]
            width = gate.mean.shape[2]
            for j, values in enumerate(zip(*(t.tolist() for t in held))):
                place = ["", j // width, j % width] if gate.axes == "spatial" else [j, "", ""]
                means = [] if by is None else [_short(v) for v in by[:, j]]
                out.writerow([gate.name, "" if gate.row is None else gate.row, *place, *map(_short, values), *means])
    return stream.getvalue()


def _columns(gate: Gate) -> list[Any]:
    return [gate.mean, gate.spread, gate.least, gate.most, gate.dead.double(), gate.saturated.double()]


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def as_json(measured: Measured) -> dict[str, Any]:
    """Return the numbers as plain data."""
    words = Words("en")

    def way(d: Any) -> dict[str, Any] | None:
        return None if d is None else {"mAP50-95": d.value, "change": d.change, "low": d.low, "high": d.high}

    value = measured.value
    return {
        "images": measured.images,
        "split": measured.split,
        "train_images": measured.train,
        "tolerance": measured.tolerance,
        "mAP50-95": None if value is None else {"value": value[0], "low": value[1], "high": value[2]},
        "every_gate_at_its_mean": way(measured.at_mean),
        "one_number_a_layer": way(measured.at_number),
        "classes": {n: {"images": held} for n, held in zip(measured.names, measured.holding)},
        "rows": [
            {
                "location": row.location, "row": row.gates[0].row, "verdict": row.verdict, "sentence": sentence(row, words),
                "frozen_alone": way(row.frozen), "gates": [_gate(row, k) for k in range(len(row.gates))],
            }
            for row in measured.rows
        ],
        "without_gate": measured.without,
        "notes": measured.notes,
    }  # fmt: skip


def _gate(row: Row, k: int) -> dict[str, Any]:
    gate = row.gates[k]
    by = row.classes[k] if row.classes else None
    return {
        "name": gate.name, "location": gate.location, "axes": gate.axes, "known_by": gate.how,
        "channels": gate.mean.shape[0], "cells": list(gate.mean.shape[1:]), "bounds": gate.bounds, "mean": gate.number,
        "spread": _spread(gate), "still": gate.still(row.tolerance), "dead": _part(gate, "dead"),
        "saturated": _part(gate, "saturated"), "classes_explain": None if by is None else by.share,
        "classes_p": None if by is None else by.p,
    }  # fmt: skip
