"""Draw a layout with matplotlib: SVG with text as text and an id on every box and arrow, PDF and PNG."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...pages import figures, fonts
from .layout import Arrow, Box, Layout
from .scene import ADDED, CHANGED, KEPT, REMOVED, Item
from .texts import texts

__all__ = ["KINDS", "draw"]

KINDS = ("svg", "pdf", "png")
# Fill and edge of each kind: told apart in print without colour by their lightness and their edges.
FILLS = {
    "attention": ("#f6a04d", "#8a3d00"), "block": ("#cfe3f5", "#2f5d8a"), "conv": ("#f2f5f8", "#5f7286"), "pool": ("#d9eddf", "#2f6b45"),
    "join": ("#ffffff", "#5f7286"), "resize": ("#ece9f6", "#5d5585"), "output": ("#51647a", "#1b2530"), "image": ("#ffffff", "#8a8a90"),
}  # fmt: skip
STATES = {ADDED: "#009e73", CHANGED: "#e69f00", REMOVED: "#c1272d"}
WIDTHS = {"attention": 1.3, "output": 1.0}
LONGEST = 320  # inches of a side; at 200 pixels an inch, a picture may have 65535
ARROW, HEAD = 0.9, (0.075, 0.034)  # width of a line in points; length and half width of an arrowhead in inches


def draw(layout: Layout, file: Path, language: str = "en") -> None:
    """Draw a layout.

    Args:
        layout: Where everything lies.
        file: The picture; its ending is one of :data:`KINDS`.
        language: ``en`` or ``zh``.

    Raises:
        FileError: The file cannot be written, or no font of this machine has the characters of the language.
        UsageError: There are no labels in this language, or a .png cannot hold so large a drawing.
    """
    say = texts(language)
    side = max(layout.width, layout.height)
    if file.suffix.lower() == ".png" and side > LONGEST:
        raise UsageError(f"{file}: {len(layout.boxes)} boxes take {side:.0f} inches, more than a .png holds. Draw .svg or .pdf.")
    names = "".join(i.module + i.was for i in layout.scene.items) + layout.scene.name + layout.scene.base
    with figures.style(say.characters + "×·", names):
        figure = _figure(layout, say)
        figures.save(figure, file.with_suffix(""), [file.suffix[1:].lower()])


def _bold() -> str:
    """Bold where the font has it: matplotlib's own; those with Chinese characters come as one weight."""
    import matplotlib

    return "bold" if matplotlib.rcParams["font.family"][0] == fonts.DEFAULT else "normal"


def _figure(layout: Layout, say: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(layout.width, 4.6)
    figure = Figure(figsize=(width, layout.height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(layout.height, 0)
    axes.set_axis_off()
    scene = layout.scene
    title = say("beside", a=scene.name, b=scene.base) if scene.base else scene.name
    axes.text(0.2, 0.26, title, fontsize=11, fontweight=_bold(), va="center", ha="left")
    _bands(axes, layout)
    for key, group in groupby(layout.columns, lambda c: c[0] if c[0] != "neck" else f"neck{c[1]}"):
        spans = [(x, x + w) for _, _, x, w in group]  # one heading over columns of one kind
        axes.text((spans[0][0] + spans[-1][1]) / 2, 0.58, say(key), fontsize=8.5, va="center", ha="center", color="#3a3a40")
    for k, arrow in enumerate(layout.arrows):
        _arrow(axes, arrow, k)
    for box in layout.boxes:
        _box(axes, box, say, scene.imgsz, scene.channels)
    _legend(axes, layout, say, width)
    return figure


def _bands(axes: Any, layout: Layout) -> None:
    """The levels, named as P3 for stride 8."""
    right = layout.width - 0.15
    for k, (level, top, bottom) in enumerate(layout.bands):
        name = f"P{level}" if level else "P0"
        axes.text(0.14, (top + bottom) / 2, f"{name}\n/{2**level}" if level >= 0 else name, fontsize=8, va="center", ha="left", color="#6a6a70")
        if k:
            y = (top + layout.bands[k - 1][2]) / 2
            axes.plot([0.14, right], [y, y], color="#d5d5da", linewidth=0.6, linestyle=(0, (2, 3)), zorder=0)


def _box(axes: Any, box: Box, say: Any, imgsz: tuple[int, int], channels: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    item = box.item
    kind = "image" if item is None else item.kind
    fill, edge = FILLS[kind]
    state = KEPT if item is None else item.state
    line = STATES.get(state, edge)
    round_ = 0.05
    patch = FancyBboxPatch(
        (box.x + round_, box.y + round_), box.width - 2 * round_, box.height - 2 * round_, boxstyle=f"round,pad={round_}",
        facecolor="#ffffff" if state == REMOVED else fill, edgecolor=line,
        linewidth=2.2 if state else WIDTHS.get(kind, 0.8), linestyle=(0, (3, 2)) if state == REMOVED else "-", zorder=3,
    )  # fmt: skip
    patch.set_gid(box_id(item))
    axes.add_patch(patch)
    ink = "#ffffff" if kind == "output" and state != REMOVED else "#1b1b1d"
    x, y = box.x + box.width / 2, box.y + box.height / 2
    if item is None:
        axes.text(x, y - 0.075, say("image"), fontsize=8, va="center", ha="center", color=ink, zorder=4)
        axes.text(x, y + 0.085, f"{channels} · {imgsz[0]}×{imgsz[1]}", fontsize=7, va="center", ha="center", color="#3a3a40", zorder=4)
        return
    weight = _bold() if kind == "attention" else "normal"
    second = say("was", m=item.was) if item.was else item.shape
    if kind == "output" and box.height > 0.8:
        axes.text(x, y - 0.09, str(item.number), fontsize=7, va="center", ha="center", color=ink, zorder=4)
        axes.text(x, y + 0.07, item.name, fontsize=8.5, fontweight=_bold(), va="center", ha="center", color=ink, zorder=4)
        if item.was:
            axes.text(x, y + 0.24, second, fontsize=7, va="center", ha="center", color=ink, zorder=4)
        return
    up = 0.075 if second else 0.0
    axes.text(box.x + 0.07, y - up, str(item.number), fontsize=6.5, va="center", ha="left", color="#6a6a70" if kind != "output" else ink, zorder=4)
    axes.text(x + 0.06, y - up, item.name, fontsize=8, fontweight=weight, va="center", ha="center", color=ink, zorder=4)
    if second:
        axes.text(x + 0.06, y + 0.085, second, fontsize=7, va="center", ha="center", color="#3a3a40" if kind != "output" else ink, zorder=4)


def _arrow(axes: Any, arrow: Arrow, k: int) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Outline

    state = arrow.link.state
    colour = STATES.get(state, "#4a5560")
    lead = arrow.link.source is not None and arrow.link.source.kind == "attention" and not state
    colour = "#8a3d00" if lead else colour
    (x0, y0), (x1, y1) = arrow.points[-2:]
    length = max(abs(x1 - x0) + abs(y1 - y0), 1e-9)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    points = [*arrow.points[:-1], (x1 - dx * HEAD[0] * 0.9, y1 - dy * HEAD[0] * 0.9)]
    line = PathPatch(
        Outline(points), fill=False, edgecolor=colour, linewidth=1.4 if state else ARROW, joinstyle="round", capstyle="butt",
        linestyle=(0, (3, 2)) if state == REMOVED else "-", zorder=2,
    )  # fmt: skip
    line.set_gid(arrow_id(arrow, k))
    axes.add_patch(line)
    tip = Polygon(
        [(x1, y1), (x1 - dx * HEAD[0] - dy * HEAD[1], y1 - dy * HEAD[0] - dx * HEAD[1]), (x1 - dx * HEAD[0] + dy * HEAD[1], y1 - dy * HEAD[0] + dx * HEAD[1])],
        closed=True, facecolor=colour, edgecolor="none", zorder=2.5,
    )  # fmt: skip
    tip.set_gid(f"tip-{k}")
    axes.add_patch(tip)


def box_id(item: Item | None) -> str:
    """Return the id of a box: ``box-image``, ``box-4``; of a removed row, ``box-removed-4``."""
    if item is None:
        return "box-image"
    return f"box-removed-{item.number}" if item.state == REMOVED else f"box-{item.number}"


def arrow_id(arrow: Arrow, k: int) -> str:
    """Return the id of an arrow: ``arrow-k-from-4-to-7``."""
    return f"arrow-{k}-from-{box_id(arrow.link.source)[4:]}-to-{box_id(arrow.link.target)[4:]}"


def _legend(axes: Any, layout: Layout, say: Any, width: float) -> None:
    from matplotlib.patches import Rectangle

    kinds = [k for k in FILLS if any(i.kind == k for i in layout.scene.items) and k != "output"]
    states = [s for s in STATES if any(i.state == s for i in layout.scene.items)]
    x, y = 0.62, layout.height - 0.3
    for key in (*states, *kinds):
        label = say(key)
        need = 0.3 + 0.075 * sum(2 if ord(c) > 0x2E80 else 1 for c in label)
        if x + need > width - 0.1 and x > 0.62:
            x, y = 0.62, y + 0.2
        fill, edge = FILLS[key] if key in FILLS else ("#ffffff", STATES[key])
        axes.add_patch(
            Rectangle((x, y - 0.06), 0.18, 0.12, facecolor=fill, edgecolor=edge, linewidth=1.8 if key in STATES else 0.8,
                      linestyle=(0, (3, 2)) if key == REMOVED else "-")
        )  # fmt: skip
        axes.text(x + 0.24, y, label, fontsize=7.5, va="center", ha="left")
        x += need + 0.1
