"""Put each row into a column and a slot: down the backbone, up and down the neck, equal strides at equal height."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .scene import Item, Scene

__all__ = ["Column", "Grid", "grid_of"]

DOWN, UP = 1, -1


@dataclass
class Column:
    """Rows below one another.

    Args:
        part: ``backbone``, ``neck`` or ``output``.
        way: ``1`` where the rows go down to larger strides, ``-1`` where they go up, 0 where the stride stays.
        items: Its rows in the order of the file.
    """

    part: str
    way: int = 0
    items: list[Item] = field(default_factory=list)


@dataclass
class Grid:
    """The columns, and where each row stands.

    Args:
        columns: From left to right; the last holds the output alone.
        slot: The slot of each row, from 0 at the top; the output spans `span`.
        bands: The slots of each level, which is the logarithm of the stride: level, first slot, number of slots.
        span: First and last slot that the output reaches over.
    """

    columns: list[Column]
    slot: dict[Item, int]
    bands: list[tuple[int, int, int]]
    span: tuple[int, int] = (0, 0)

    @property
    def slots(self) -> int:
        """The number of slots."""
        return self.bands[-1][1] + self.bands[-1][2] if self.bands else 0


def grid_of(scene: Scene) -> Grid:
    """Return the columns and slots of a model."""
    levels = _levels(scene)
    reads: dict[Item, list[Item | None]] = {}
    for link in scene.links:
        reads.setdefault(link.target, []).append(link.source)
    columns = _columns(scene.items, levels, reads)
    inner = columns[:-1]
    counts: dict[int, int] = {}
    for column in inner:
        for level in {levels[i] for i in column.items}:
            counts[level] = max(counts.get(level, 0), sum(levels[i] == level for i in column.items))
    bands, first = [], 0
    for level in sorted(counts):
        bands.append((level, first, counts[level]))
        first += counts[level]
    start = {level: (slot, count) for level, slot, count in bands}
    slot: dict[Item, int] = {}
    for column in inner:
        for level in {levels[i] for i in column.items}:
            rows = [i for i in column.items if levels[i] == level]
            top, count = start[level]
            for k, item in enumerate(rows):
                slot[item] = top + count - 1 - k if column.way == UP else top + k
    (output,) = columns[-1].items
    ends = [slot[s] for s in reads.get(output, []) if s is not None and s in slot] or [0]
    slot[output] = min(ends)
    return Grid(columns, slot, bands, (min(ends), max(ends)))


def _levels(scene: Scene) -> dict[Item, int]:
    """The level of each row; of one whose stride nothing tells, that of what it reads."""
    found: dict[Item, int] = {}
    sources: dict[Item, Item | None] = {}
    for link in scene.links:
        sources.setdefault(link.target, link.source)
    for item in scene.items:
        source = sources.get(item)
        before = found.get(source, 0) if source is not None else 0
        found[item] = round(math.log2(item.stride)) if item.stride and item.stride > 0 else before
    return found


def _columns(items: list[Item], levels: dict[Item, int], reads: dict[Item, list[Item | None]]) -> list[Column]:
    """A new column begins where the neck does, where the way turns, and where a row reads another part of the model."""
    *rows, output = items
    columns: list[Column] = []
    before: Item | None = None
    for item in rows:
        part = "backbone" if item.part == "backbone" else "neck"
        fresh = before is None or columns[-1].part != part
        if not fresh and before is not None:
            step = (levels[item] > levels[before]) - (levels[item] < levels[before])
            jumps = before not in reads.get(item, []) and step != 0
            turns = bool(step and columns[-1].way and step != columns[-1].way)
            if jumps and columns[-1].way and step != columns[-1].way:
                fresh, step = True, 0
            elif turns:
                fresh = True
            if not fresh:
                columns[-1].way = columns[-1].way or step
            else:
                columns.append(Column(part, step))
        else:
            columns.append(Column(part))
        columns[-1].items.append(item)
        before = item
    columns.append(Column("output", 0, [output]))
    return columns


