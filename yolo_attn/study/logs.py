"""`results.csv` of either host and every generation, as one table: epoch by epoch, columns by one name each.

Classic YOLOv5 pads its names with blanks, counts epochs from 0 and writes ``metrics/mAP_0.5``; ultralytics wrote padded
names up to 8.2 and plain ones with a column ``time`` since, and ``(B)`` behind what it measures of boxes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..files import read_source

__all__ = ["FILE", "Log", "read"]

FILE = "results.csv"
NAMES = {
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "metrics/map50": "mAP50",
    "metrics/map_0.5": "mAP50",
    "metrics/map50-95": "mAP50-95",
    "metrics/map_0.5:0.95": "mAP50-95",
    "time": "time",
}
LOSSES = {"train": "train loss", "val": "val loss"}


@dataclass(frozen=True)
class Log:
    """A training, epoch by epoch.

    Args:
        epochs: Their numbers, from 1, each once and in order.
        columns: ``mAP50-95``, ``mAP50``, ``precision``, ``recall``, ``time`` (seconds from the beginning), and the sum of
            the terms of ``train loss`` and ``val loss``, as far as the file has them; NaN where a number is missing.
        skipped: Lines that are no epoch: cut short, or damaged.
    """

    epochs: list[int]
    columns: Mapping[str, list[float]]
    skipped: int = 0

    def best(self) -> int | None:
        """The place of the best epoch: 0.1 mAP50 + 0.9 mAP50-95 is highest; None without these. The hosts choose `best.pt` by
        it, but for newer ultralytics, which goes by mAP50-95 alone and whose version a log does not say."""
        if "mAP50-95" not in self.columns or "mAP50" not in self.columns:
            return None
        scores = [0.1 * a + 0.9 * b for a, b in zip(self.columns["mAP50"], self.columns["mAP50-95"])]
        finite = [(s, -k) for k, s in enumerate(scores) if math.isfinite(s)]
        return -max(finite)[1] if finite else None


def read(file: Path) -> Log:
    """Read a log.

    Raises:
        FileError: It is missing, holds no epoch, or is no such table.
    """
    try:
        lines = read_source(file).replace("\0", "").splitlines()
    except OSError as exc:
        raise FileError(f"{file}: cannot be read: {exc.strerror or exc}") from exc
    try:
        table = [row for row in csv.reader(lines) if row]
    except csv.Error as exc:
        raise FileError(f"{file}: is no table of comma-separated values: {exc}") from exc
    head = [name.strip() for name in table[0]] if table else []
    if "epoch" not in head:
        raise FileError(f"{file}: is no log of a training: its first line has no column 'epoch'")
    while head and not head[-1]:
        head.pop()
    rows: dict[int, list[float]] = {}
    skipped = 0
    for row in table[1:]:
        numbers = _numbers(row, len(head))
        if numbers is None or not numbers[head.index("epoch")].is_integer():
            skipped += 1
        else:
            rows[int(numbers[head.index("epoch")])] = numbers  # of an epoch that was resumed the last
    if not rows:
        raise FileError(f"{file}: holds no finished epoch")
    shift = 1 if min(rows) == 0 else 0
    order = sorted(rows)
    return Log([e + shift for e in order], _columns(head, [rows[e] for e in order]), skipped)


def _numbers(row: list[str], width: int) -> list[float] | None:
    """A line's numbers, NaN for an empty cell; None for a line that is cut short or holds something else."""
    if len(row) < width:
        return None
    try:
        return [float(cell) if cell.strip() else math.nan for cell in row[:width]]
    except ValueError:
        return None


def _columns(head: list[str], rows: list[list[float]]) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for k, name in enumerate(head):
        plain = name.replace("(B)", "").lower()
        values = [row[k] for row in rows]
        if plain in NAMES:
            out.setdefault(NAMES[plain], values)
        part, slash, term = plain.partition("/")
        if slash and part in LOSSES and term.endswith(("_loss", "loss")):
            known = out.setdefault(LOSSES[part], [0.0] * len(rows))
            out[LOSSES[part]] = [a + b for a, b in zip(known, values)]
    return out
