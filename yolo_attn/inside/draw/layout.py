"""Boxes and arrows in inches: what neither overlaps nor runs through a box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .columns import Grid, grid_of
from .routing import Plan, Route, route
from .scene import Item, Link, Scene

__all__ = ["Arrow", "Box", "Layout", "layout_of"]

HEIGHT, GAP, LANE = 0.40, 0.22, 0.09  # of a box; between two boxes; from arrow to arrow
LETTER, LEAST = 0.072, 1.05  # width of a letter of the first line; of the narrowest column
TOP, LEFT, EDGE = 0.75, 0.62, 0.2


@dataclass
class Box:
    """A box: its row (None for the image), its left upper corner, its size; y grows downwards."""

    item: Item | None
    x: float
    y: float
    width: float
    height: float

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies inside, its edge not included."""
        return self.x + 1e-6 < x < self.x + self.width - 1e-6 and self.y + 1e-6 < y < self.y + self.height - 1e-6


@dataclass
class Arrow:
    """An arrow: its corners from what is read to what reads."""

    link: Link
    points: list[tuple[float, float]]


@dataclass
class Layout:
    """A drawing in inches.

    Args:
        scene: What is drawn.
        width: Of the page.
        height: Of the page.
        boxes: The image first, then the rows in the order of the file.
        arrows: One for each entry of a `from`.
        columns: Part, way, left edge and width of each column.
        bands: Level, upper and lower edge of each.
    """

    scene: Scene
    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    columns: list[tuple[str, int, float, float]] = field(default_factory=list)
    bands: list[tuple[int, float, float]] = field(default_factory=list)


def layout_of(scene: Scene) -> Layout:
    """Return where boxes and arrows of a model lie."""
    grid = grid_of(scene)
    plan = route(scene, grid)
    xs, widths, lanes_x = _across(grid, plan)
    ys, lanes_y = _down(grid, plan)
    out = Layout(scene)
    place: dict[Item | None, Box] = {}
    for number, column in enumerate(grid.columns):
        for item in column.items:
            if number == len(grid.columns) - 1:
                first, last = grid.span
                box = Box(item, xs[number], ys[first], widths[number], ys[last] + HEIGHT - ys[first])
            else:
                box = Box(item, xs[number], ys[grid.slot[item]], widths[number], HEIGHT)
            place[item] = box
    place[None] = Box(None, xs[0], ys[0] - HEIGHT - _gap(plan.lanes_in_gap(0)), widths[0], HEIGHT)
    out.boxes = [place[None], *(place[i] for i in scene.items)]
    for r in plan.routes:
        out.arrows.append(Arrow(r.link, _points(r, place, lanes_x, lanes_y)))
    out.columns = [(c.part, c.way, xs[i], widths[i]) for i, c in enumerate(grid.columns)]
    out.bands = [(level, ys[first], ys[first + count - 1] + HEIGHT) for level, first, count in grid.bands]
    right = [x for a in out.arrows for x, _ in a.points] + [b.x + b.width for b in out.boxes]
    out.width = max(right) + EDGE + 0.1
    out.height = max(b.y + b.height for b in out.boxes) + _gap(plan.lanes_in_gap(grid.slots)) + 0.6
    return out


def _gap(lanes: int) -> float:
    return GAP + LANE * max(lanes - 1, 0) if lanes else GAP


def _across(grid: Grid, plan: Plan) -> tuple[list[float], list[float], dict[tuple[int, int], float]]:
    """Left edges and widths of the columns, and where each vertical lane runs."""
    xs, widths, lanes = [], [], {}
    x = LEFT
    for number, column in enumerate(grid.columns):
        width = max([LEAST, *(LETTER * (len(i.name) + len(str(i.number)) + 3) for i in column.items)])
        width = max([width, *(LETTER * 0.92 * (max(len(i.shape), len(i.was) + 5) + 1) for i in column.items)])
        xs.append(x)
        widths.append(width)
        x += width
        count = plan.lanes_in_gutter(number)
        for k in range(count):
            lanes[number, k] = x + 0.2 + LANE * k
        x += 0.4 + LANE * max(count - 1, 0) if count else 0.34
    return xs, widths, lanes


def _down(grid: Grid, plan: Plan) -> tuple[list[float], dict[tuple[int, int], float]]:
    """Upper edges of the slots, and where each horizontal lane runs; lane gap `k` lies above slot `k`."""
    ys, lanes = [], {}
    y = TOP + HEIGHT
    for slot in range(grid.slots + 1):
        count = plan.lanes_in_gap(slot)
        gap = _gap(count)
        for k in range(count):
            lanes[slot, k] = y + gap / 2 + LANE * (k - (count - 1) / 2)
        y += gap
        ys.append(y)
        y += HEIGHT
    return ys, lanes


def _points(r: Route, place: dict[Item | None, Box], lanes_x: dict[tuple[int, int], float], lanes_y: dict[tuple[int, int], float]) -> list[tuple[float, float]]:
    """The corners of one arrow."""
    a, b = place[r.link.source], place[r.link.target]
    out, into = a.y + a.height / 2, b.y + HEIGHT / 2
    if r.straight:
        x = a.x + a.width / 2
        down = a.y < b.y
        return [(x, a.y + a.height if down else a.y), (x, b.y if down else b.y + b.height)]
    points = [(a.x + a.width, out)]
    y = out
    if r.gap is not None:
        first = lanes_x[r.first]  # type: ignore[index]  # a gap is reached by a lane
        y = lanes_y[r.gap]
        points += [(first, out), (first, y)]
    if r.last is not None:
        x = lanes_x[r.last]
        end = into + r.port * HEIGHT
        points += [(x, y), (x, end)]
        y = end
    side = b.x + b.width if r.back else b.x
    points.append((side, y))
    return _merged(points)


def _merged(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without corners that are none."""
    out: list[tuple[float, float]] = []
    for p in points:
        if out and abs(out[-1][0] - p[0]) < 1e-9 and abs(out[-1][1] - p[1]) < 1e-9:
            continue
        if len(out) > 1 and (
            abs(out[-2][0] - out[-1][0]) < 1e-9 > abs(out[-1][0] - p[0]) or abs(out[-2][1] - out[-1][1]) < 1e-9 > abs(out[-1][1] - p[1])
        ):
            out[-1] = p
            continue
        out.append(p)
    return out
