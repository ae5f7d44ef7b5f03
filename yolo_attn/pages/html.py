"""An HTML page that stands alone: opened from disk, it asks for nothing, neither file nor network.

Every text is escaped, as names of classes and configs come from strangers' files. The page follows the reader's light
or dark setting, its tables sort by a click on a heading (or a key), and it prints on white paper.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Union

from ..files import write_text
from .texts import OF_PAGES, check_language

__all__ = ["Cell", "Page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1d; --paper: #fff; --faint: #d8d8dc; --quiet: #5c5c63; --shade: #f4f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6ea; --paper: #17171a; --faint: #3a3a40; --quiet: #a3a3ab; --shade: #212126; }
}
body { margin: 2rem auto; padding: 0 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin-top: 1.6rem; }
.note { color: var(--quiet); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
caption { text-align: left; color: var(--quiet); font-size: .9rem; padding-bottom: .3rem; }
caption span { display: inline-block; position: sticky; left: 0; max-width: calc(100vw - 2rem); } /* the table scrolls below it */
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--faint); text-align: left; vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; white-space: nowrap; }
tbody tr:hover { background: var(--shade); }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid #0072b2; }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after { content: " \\2193"; }
figure { margin: 1rem 0; } figcaption { color: var(--quiet); font-size: .9rem; }
figure svg { max-width: 100%; height: auto; } figure img { max-width: 100%; }
.row { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; } .row figure { margin: 0; flex: 0 1 auto; }
code, pre { font: .87em/1.45 ui-monospace, monospace; background: var(--shade); border-radius: 3px; }
code { padding: .1em .3em; } pre { padding: .7rem; overflow-x: auto; }
@media (max-width: 44em) { :lang(zh) td { min-width: 5em; } } /* Chinese breaks anywhere: a column would be one character wide */
@media print {
  :root { --ink: #000; --paper: #fff; --faint: #bbb; --quiet: #333; --shade: #fff; }
  body { margin: 0; max-width: none; font-size: 10pt; } .wide { overflow: visible; }
  caption span { max-width: none; } figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  table { font-size: 7pt; } th, td { padding: .15rem .25rem; } thead th { white-space: normal; }
}
"""
# What a cell sorts by is its data-v where it has one; numbers by value, cells without a value last in either order.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0], k = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[k].dataset.v ?? row.cells[k].textContent.trim();
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)], numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
    if ((x === "") !== (y === "")) return x === "" ? 1 : -1;
    return (numbers ? x - y : x.localeCompare(y)) * (down ? -1 : 1);
  };
  body.append(...[...body.rows].sort(order));
});
"""
# The browser itself holds the page to it: no script but this one, nothing from elsewhere.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
    + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    + "'"
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than its text.

    Args:
        text: What it shows.
        value: What the column sorts by; None for a cell that has no value, which sorts last.
        bold: Set in bold.
        title: What a pointer that rests on it is told.
    """

    text: str
    value: float | None = None
    bold: bool = False
    title: str = ""


Cells = Sequence[Union[str, Cell]]


class Page:
    """A page under construction: parts are appended in order, :meth:`write` writes it.

    Args:
        title: Of the page, its first heading too.
        language: ``en`` or ``zh``.
    """

    def __init__(self, title: str, language: str = "en") -> None:
        self._title, self._language = title, OF_PAGES[check_language(language)]
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str, level: int = 2) -> None:
        """Append a heading."""
        self._parts.append(f"<h{level}>{escape(text)}</h{level}>")

    def paragraph(self, text: str, *, note: bool = False) -> None:
        """Append a paragraph; a note stands back."""
        self._parts.append(f"<p{' class=note' if note else ''}>{escape(text)}</p>")

    def points(self, texts: Sequence[str]) -> None:
        """Append a list; nothing where it is empty."""
        if texts:
            self._parts.append("<ul>" + "".join(f"<li>{escape(t)}</li>" for t in texts) + "</ul>")

    def code(self, text: str) -> None:
        """Append commands or code."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def table(self, head: Sequence[str], rows: Sequence[Cells], caption: str = "") -> None:
        """Append a table that sorts.

        Args:
            head: The headings.
            rows: As many cells each. A column all of whose cells are numbers, or :class:`Cell` with a value, is set right.
            caption: Above it.
        """
        right = [_is_number_column([row[k] for row in rows]) for k in range(len(head))]
        mark = [" class=number" if r else "" for r in right]
        out = ["<div class=wide><table>", f"<caption><span>{escape(caption)}</span></caption>" if caption else "", "<thead><tr>"]
        out += [f'<th scope=col{m}><button type=button>{escape(h)}</button></th>' for h, m in zip(head, mark)]
        out.append("</tr></thead><tbody>")
        for row in rows:
            out.append("<tr>" + "".join(_cell(c, m) for c, m in zip(row, mark)) + "</tr>")
        out.append("</tbody></table></div>")
        self._parts.append("\n".join(filter(None, out)))

    def figure(self, svg: str, caption: str = "", alt: str = "") -> None:
        """Append a drawing.

        Args:
            svg: What :func:`yolo_attn.pages.figures.inline` returns, and nothing that a stranger wrote.
            caption: Below it.
            alt: What a reader who does not see it is told; the caption when empty.
        """
        label = f'role="img" aria-label="{escape(alt or caption)}" '
        self._parts.append(f"<figure>{svg.replace('<svg ', '<svg ' + label, 1)}{_caption(caption)}</figure>")

    def pictures(self, pictures: Sequence[tuple[bytes, str]], height: int = 0) -> None:
        """Append images side by side, as many in a line as there is room for.

        Args:
            pictures: PNG or JPEG bytes, and the caption of each.
            height: At which they are shown, in pixels; their own when 0.
        """
        size = f" height={int(height)}" if height else ""
        out = []
        for data, caption in pictures:
            kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
            source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
            out.append(f'<figure><img src="{source}"{size} alt="{escape(caption)}">{_caption(caption)}</figure>')
        self._parts.append("<div class=row>" + "\n".join(out) + "</div>")

    def text(self) -> str:
        """Return the page."""
        return (
            f'<!DOCTYPE html>\n<html lang="{self._language}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(self._parts)
            + f"\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
        )

    def write(self, file: Path) -> None:
        """Write the page.

        Raises:
            FileError: The disk refuses.
        """
        write_text(file, self.text())


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _is_number_column(cells: Cells) -> bool:
    """Whether there is a number, and nothing but numbers and gaps."""
    kinds = {_kind(c) for c in cells}
    return "number" in kinds and "text" not in kinds


def _kind(cell: str | Cell) -> str:
    if isinstance(cell, Cell) and cell.value is not None:
        return "number"
    text = cell.text if isinstance(cell, Cell) else cell
    if text.strip() in ("", "-"):
        return "gap"
    try:
        float(text.replace(",", ""))
    except ValueError:
        return "text"
    return "number"


def _cell(cell: str | Cell, mark: str) -> str:
    text = cell.text if isinstance(cell, Cell) else cell
    value = title = ""
    if isinstance(cell, Cell) and cell.value is not None:
        value = f' data-v="{cell.value!r}"'
    elif _kind(cell) == "gap":
        value = ' data-v=""'
    elif mark:
        value = f' data-v="{text.replace(",", "")}"'
    if isinstance(cell, Cell):
        title = f' title="{escape(cell.title)}"' if cell.title else ""
    shown = f"<b>{escape(text)}</b>" if isinstance(cell, Cell) and cell.bold else escape(text)
    return f"<td{mark}{value}{title}>{shown}</td>"
