"""Figures in one style: readable without colour, the same bytes each time, as SVG, PDF and PNG and inside a page.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart; each goes with a line and a
marker of its own. In SVG text stays text. What is drawn in ink takes the colour of the page that it stands in.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files import write_bytes
from ..log import announce
from . import fonts

__all__ = ["COLOURS", "INK", "inline", "inlined", "look", "new", "save", "style"]

INK, PAPER, GREY = "#1b1b1d", "#ffffff", "#8a8a90"
# Okabe, Ito: Color Universal Design (2008); the first, for a baseline, is ink, and their yellow cannot be seen on white.
COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
KINDS = ("svg", "pdf", "png")
_STYLE: dict[str, Any] = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": PAPER, "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GREY, "grid.alpha": 0.35, "grid.linewidth": 0.5,
    "axes.axisbelow": True, "font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False,
    "lines.linewidth": 1.5, "lines.markersize": 5, "figure.dpi": 100, "savefig.dpi": 200, "image.cmap": "viridis",
    "svg.hashsalt": "yolo_attn", "svg.fonttype": "none", "pdf.compression": 9, "path.simplify": True,
}  # fmt: skip


@contextlib.contextmanager
def style(labels: str = "", names: str = "") -> Iterator[None]:
    """Draw and save within this context.

    Args:
        labels: What the figure says itself; a font must have its characters.
        names: What it takes from the user, such as classes; drawn as boxes where no font has them, which is said.

    Raises:
        FileError: No font of this machine has the characters of `labels`; says how to get one.
    """
    import matplotlib

    font = fonts.require(labels)
    wider = fonts.find(labels + names)
    if wider is None:
        announce("no font of this machine has all characters of the names in the figures. %s", fonts.HOW)
    font = wider or font
    more: dict[str, Any] = {
        "font.family": list(dict.fromkeys([font.family, fonts.DEFAULT])),
        "pdf.fonttype": 42 if font.embeds else 3,
        "axes.unicode_minus": font.family == fonts.DEFAULT,
    }
    if "text.parse_math" in matplotlib.rcParams:  # since 3.6
        more["text.parse_math"] = False  # a class may be called "$"
    settings: Any = {**_STYLE, **more}
    with matplotlib.rc_context(settings):
        yield


def new(width: float = 6.4, height: float = 4.0) -> Any:
    """Return an empty `matplotlib.figure.Figure`, of no window and of no global state.

    Args:
        width: In inches.
        height: In inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), constrained_layout=True)
    FigureCanvasAgg(figure)
    return figure


def look(k: int) -> dict[str, Any]:
    """Return colour, line and marker of the k-th series, from 0; the first is that of a baseline."""
    first = k % len(COLOURS)
    again = k // len(COLOURS)  # after the last colour the first again, with another line
    return {"color": COLOURS[first], "linestyle": LINES[(first + again) % 7], "marker": MARKERS[(first + again) % 7]}


def save(figure: Any, stem: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Write a figure as `stem` with each ending; equal figures give equal bytes.

    Raises:
        FileError: The disk refuses.
    """
    out = []
    for kind in kinds:
        target = stem.with_name(f"{stem.name}.{kind}")
        write_bytes(target, _bytes(figure, kind))
        out.append(target)
    return out


def _bytes(figure: Any, kind: str) -> bytes:
    none = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]  # no date: the same each time
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, metadata=none)
    return stream.getvalue()


def inline(figure: Any, key: str) -> str:
    """Return a figure as an `<svg>` for a page; see :func:`inlined`."""
    return inlined(_bytes(figure, "svg").decode(), key)


def inlined(text: str, key: str) -> str:
    """Return an SVG that :func:`save` wrote as part of a page: its ids begin with `key`, ink takes the page's colour.

    Args:
        text: The SVG.
        key: Of this figure alone within the page: a letter, then letters, digits and hyphens.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", text)
    text = re.sub(r'(<svg [^>]*?)\bheight="[^"]*" ?', r"\1", text, count=1)  # follows from its width, which a page narrows
    return text.replace(INK, "currentColor").replace(f"fill: {PAPER}", "fill: none")
