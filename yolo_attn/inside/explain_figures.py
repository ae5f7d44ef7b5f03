"""The figures of `explain`: maps on images, curves beside chance, receptive fields."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pages import figures
from ..pages.texts import Texts
from ..runtime.image import color
from . import faithfulness, receptive_field, spatial
from .explain import Explained, Found

__all__ = ["curves", "fields", "overlay", "picture"]

MOST_GATES = 6  # of each detector, in one figure
PANEL = 2.1  # inches


def overlay(x: Any, heat: Any, top: float) -> Any:
    """Return a map on a grey image, (h, w, 3) between 0 and 1: what is not marked stays grey.

    Args:
        x: (3, h, w) RGB between 0 and 1.
        heat: (h, w), at least 0.
        top: What has the full colour.
    """
    import matplotlib

    grey = (np.asarray(x).mean(0) * 0.75 + 0.1)[..., None].repeat(3, 2)
    level = np.clip(heat / top if top > 0 else heat * 0, 0, 1) ** 0.6
    paint = matplotlib.colormaps["inferno"](0.25 + 0.75 * level)[..., :3]
    weight = np.clip(level * 1.6, 0, 0.9)[..., None]
    return grey * (1 - weight) + paint * weight


def picture(done: Explained, found: Found, texts: Texts) -> Any:
    """Return the figure of one image: a line for each detection, a column for each detector, then gates of positions."""
    x = found.picture.x[0].cpu().numpy()
    h, w = x.shape[1:]
    names = done.names
    gates = [[(n, m) for n, _, m in side[:MOST_GATES]] for side in found.gates]
    lines = [(names[s], g) for s, g in enumerate(gates) if g]
    columns = max([1 + len(names), *(len(g) for _, g in lines)])
    rows = len(found.looks) + len(lines)
    figure = figures.new(PANEL * columns * min(max(w / h, 0.6), 1.8), (PANEL + 0.2) * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    for k, group in enumerate(found.looks):
        boxes = [found.boxes[k], *(look.candidate.box for look in group)]
        heats = [look.cam / max(float(look.cam.sum()), 1e-30) for look in group]
        top = max(float(heat.max()) for heat in heats)
        shown = [x.transpose(1, 2, 0), *(overlay(x, heat, top) for heat in heats)]
        cls = group[0].candidate.cls
        labels = [str(done.classes.get(cls, cls))]
        for name, look in zip(names, group):
            labels.append(f"{name}\n{look.candidate.score:.2f}, {texts('energy')} {look.values[0]:.2f}")
        for ax, image, box, label in zip(axes[k], shown, boxes, labels):
            ax.imshow(image, interpolation="nearest")
            _box(ax, box, cls)
            ax.set_title(label, fontsize=7)
    for row, (name, maps) in enumerate(lines, len(found.looks)):
        for ax, (gate, map_) in zip(axes[row], maps):
            low, high = float(map_.min()), float(map_.max())
            ax.imshow(x.mean(0), cmap="gray", vmin=0, vmax=1)
            ax.imshow(spatial.wide(map_, (h, w)), cmap="viridis", alpha=0.6, vmin=low, vmax=max(high, low + 1e-6))
            for k, group in enumerate(found.looks):
                _box(ax, found.boxes[k], group[0].candidate.cls)
            ax.set_title(f"{name}\n{gate}: {low:.2f} - {high:.2f}", fontsize=7)
    return figure


def _box(ax: Any, box: Any, cls: int) -> None:
    from matplotlib.patches import Rectangle

    paint = [v / 255 for v in color(cls)[::-1]]
    corner, sides = (box[0] - 0.5, box[1] - 0.5), (box[2] - box[0], box[3] - box[1])
    ax.add_patch(Rectangle(corner, *sides, fill=False, edgecolor="white", linewidth=2.4))
    ax.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=paint, linewidth=1.4))


def curves(done: Explained, texts: Texts) -> Any:
    """Return insertion and deletion curves of each detector, and the range of those of shuffled weights."""
    figure = figures.new(6.8, 3.0)
    shares = 100 * np.asarray(faithfulness.STEPS[1:-1])
    for kind, ax in enumerate(figure.subplots(1, 2, sharey=True)):
        for s, name in enumerate(done.names):
            looks = [group[s] for f in done.images for group in f.looks]
            at = np.repeat(np.arange(len(done.images)), [len(f.looks) for f in done.images])
            all_ = np.stack([look.curves[:, kind, 1:-1] for look in looks])  # (D, 1 + draws, steps)
            mean = np.stack([all_[at == i].mean(0) for i in np.unique(at)]).mean(0)
            style = figures.look(s)
            ax.plot(shares, mean[0], label=name, **style)
            ax.fill_between(shares, mean[1:].min(0), mean[1:].max(0), color=style["color"], alpha=0.15, linewidth=0,
                            label=f"{name}, {texts('shuffled')}")  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_xticks(shares, [f"{v:g} %" for v in shares])
        ax.set_title(texts("insertion" if kind == 0 else "deletion"))
        ax.set_xlabel(texts("share"))
        ax.set_ylim(bottom=0)
    figure.axes[0].set_ylabel(texts("score"))
    figure.axes[1].legend()
    return figure


def fields(done: Explained, texts: Texts) -> Any:
    """Return the effective receptive fields: a line for each detector, a column for each level."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    columns = max(len(f) for f in done.fields)
    figure = figures.new(PANEL * columns + 0.4, (PANEL + 0.25) * len(done.names))
    axes = figure.subplots(len(done.names), columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    for s, name in enumerate(done.names):
        for k, (field, stride) in enumerate(zip(done.fields[s], done.strides[s])):
            ax = axes[s, k]
            top = max(float(field.max()), 1e-30)
            ax.imshow(np.maximum(field, top * 1e-4), norm=LogNorm(top * 1e-4, top), cmap="viridis", interpolation="nearest")
            y, x = receptive_field.centre(field)
            mean = receptive_field.mean_sides(done.sides[s][:, k])
            for side, line in zip(mean[~np.isnan(mean)], ("-", "--")):
                corner = (x - side / 2 - 0.5, y - side / 2 - 0.5)
                ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.2, linestyle=line))
            ax.set_title(f"{name}\n{texts('stride', s=stride)}: {', '.join(f'{v:.0f}' for v in mean)} px", fontsize=8)
    return figure
