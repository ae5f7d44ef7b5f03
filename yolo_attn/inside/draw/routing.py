"""Lead the arrows around the boxes: vertical lanes between columns, horizontal lanes between slots.

An arrow leaves a box at the middle of its right side, runs down or up in the lane beside its column, crosses other columns
where no box stands, and enters the next box on its left. What comes from one box shares a lane; others never do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .columns import Grid
from .scene import Item, Link, Scene

__all__ = ["Plan", "Route", "route"]

Lane = tuple[int, int]  # gutter or gap, and the lane in it


@dataclass
class Route:
    """The way of one arrow.

    Args:
        link: The arrow.
        straight: From box to box within a column, with none between.
        first: The lane beside the source's column, where it has to reach a gap.
        gap: The lane between two slots, where it crosses columns with boxes in its way.
        last: The lane beside the target's column; None where it enters at its own height.
        port: Where it enters, in heights of a box from the middle.
        back: Whether it enters on the right, from the lane on that side.
    """

    link: Link
    straight: bool = False
    first: Lane | None = None
    gap: Lane | None = None
    last: Lane | None = None
    port: float = 0.0
    back: bool = False


@dataclass
class Plan:
    """All arrows, and how many lanes they need."""

    routes: list[Route] = field(default_factory=list)
    gutters: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)

    def lanes_in_gutter(self, gutter: int) -> int:
        """Return the number of vertical lanes right of a column."""
        return self.gutters.get(gutter, 0)

    def lanes_in_gap(self, gap: int) -> int:
        """Return the number of horizontal lanes above a slot."""
        return self.gaps.get(gap, 0)


@dataclass
class _Way:
    """An arrow before lanes are numbered: gutters and gap, heights in slots."""

    route: Route
    start: int
    end: int
    from_column: int
    to_column: int
    first: int | None = None
    gap: int | None = None
    last: int | None = None


def route(scene: Scene, grid: Grid) -> Plan:
    """Return the way of every arrow."""
    column = {item: i for i, c in enumerate(grid.columns) for item in c.items}
    taken = {(column[i], grid.slot[i]) for i in scene.items if column[i] < len(grid.columns) - 1}
    output = len(grid.columns) - 1
    ways = [_way(link, grid, column, taken, output) for link in scene.links]
    seen: set[tuple[Item | None, Item]] = set()
    for way in ways:
        pair = (way.route.link.source, way.route.link.target)
        if way.route.straight and pair in seen:  # the same row twice: the second goes around
            way.route.straight, way.route.back = False, True
            way.last = way.from_column
        seen.add(pair)
    plan = Plan([w.route for w in ways])
    _number(ways, plan)
    _ports(ways)
    return plan


def _way(link: Link, grid: Grid, column: dict[Item, int], taken: set[tuple[int, int]], output: int) -> _Way:
    a = column[link.source] if link.source is not None else 0
    b = column[link.target]
    start = grid.slot[link.source] if link.source is not None else -1
    end = grid.slot[link.target]
    way = _Way(Route(link), start, end, a, b)
    if a == b:
        low, high = sorted((start, end))
        if all((a, s) not in taken for s in range(low + 1, high)):
            way.route.straight = True
        else:
            way.route.back, way.last = True, a
        return way
    spans = b == output and grid.span[0] <= start <= grid.span[1]
    free = all((c, start) not in taken for c in range(a + 1, b))
    if spans:
        end = way.end = start
    if free:
        if start != end or (link.source is None):
            way.last = b - 1
        return way
    way.first = a
    way.gap = start + 1 if end > start or (end == start and start < grid.slots - 1) else start
    if b == output and grid.span[0] < way.gap <= grid.span[1]:
        return way  # enters the output at the height of the gap
    way.last = b - 1
    return way


def _number(ways: list[_Way], plan: Plan) -> None:
    """Give each way its lanes: those of one source share one, those that would lie on one another do not."""
    gutters: dict[int, dict[Item | None, list[tuple[float, float]]]] = {}
    gaps: dict[int, dict[Item | None, list[tuple[float, float]]]] = {}
    for w in ways:
        source = w.route.link.source
        height = w.gap - 0.5 if w.gap is not None else w.start
        if w.first is not None:
            gutters.setdefault(w.first, {}).setdefault(source, []).append(_span(w.start, height))
        if w.last is not None:
            gutters.setdefault(w.last, {}).setdefault(source, []).append(_span(height, w.end))
        if w.gap is not None:
            gaps.setdefault(w.gap, {}).setdefault(source, []).append((w.from_column, w.to_column - 1))
    lanes_x = {g: _coloured(nets) for g, nets in gutters.items()}
    lanes_y = {g: _coloured(nets) for g, nets in gaps.items()}
    for w in ways:
        source = w.route.link.source
        if w.first is not None:
            w.route.first = (w.first, lanes_x[w.first][source])
        if w.last is not None:
            w.route.last = (w.last, lanes_x[w.last][source])
        if w.gap is not None:
            w.route.gap = (w.gap, lanes_y[w.gap][source])
    plan.gutters = {g: 1 + max(lanes.values()) for g, lanes in lanes_x.items()}
    plan.gaps = {g: 1 + max(lanes.values()) for g, lanes in lanes_y.items()}


def _span(a: float, b: float) -> tuple[float, float]:
    return (min(a, b) - 0.5, max(a, b) + 0.5)


def _coloured(nets: dict[Item | None, list[tuple[float, float]]]) -> dict[Item | None, int]:
    """The lane of each source, so that no two that overlap share one; short ways lie next to the boxes."""
    lanes: list[list[tuple[float, float]]] = []
    found = {}
    for source, spans in sorted(nets.items(), key=lambda n: _length(n[1])):
        low, high = min(s[0] for s in spans), max(s[1] for s in spans)
        k = next((k for k, lane in enumerate(lanes) if all(high < a or b < low for a, b in lane)), len(lanes))
        if k == len(lanes):
            lanes.append([])
        lanes[k].append((low, high))
        found[source] = k
    return found


def _length(spans: Iterable[tuple[float, float]]) -> float:
    spans = list(spans)
    return max(s[1] for s in spans) - min(s[0] for s in spans)


def _ports(ways: list[_Way]) -> None:
    """Where the arrows that come by a lane enter: side by side, above and below the middle, which is left to others."""
    into: dict[tuple[Item, bool], list[_Way]] = {}
    for w in ways:
        if w.last is not None:
            into.setdefault((w.route.link.target, w.route.back), []).append(w)
    for found in into.values():
        above = sorted((w for w in found if _height(w) < w.end), key=_height)
        below = sorted((w for w in found if _height(w) >= w.end), key=_height)
        for side, group in ((-1, above), (1, below)):
            for k, w in enumerate(group):
                step = (k + 1) / (len(group) + 1)
                w.route.port = -0.46 + 0.38 * step if side < 0 else 0.08 + 0.38 * step


def _height(w: _Way) -> float:
    return w.gap - 0.5 if w.gap is not None else w.start
