"""What `explain` leaves in its folder: a page that stands alone, a picture of each image, figures, tables."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..errors import FileError
from ..files import REFUSED, write_text
from ..pages import figures
from ..pages.figures import save as save_figure
from ..pages.html import Cell, Page
from ..pages.texts import Texts
from ..runtime.image import unletterbox
from ..system.drafts import scratch
from ..words import option
from . import explain_figures, paired
from .explain import MEASURES, Explained, Found, Settings, explain
from .explain_texts import TEXTS
from .receptive_field import SHARES, mean_sides

__all__ = ["as_json", "lines", "report"]

SHOWN = 24  # pictures on the page; all are in the folder


def report(
    checkpoint: str,
    pictures: Sequence[str],
    out: Path,
    *,
    base: str | None = None,
    settings: Settings | None = None,
    language: str = "en",
) -> Explained:
    """Explain, and write a folder.

    Args:
        checkpoint: See :func:`.explain.explain`.
        pictures: Likewise.
        out: A folder that does not exist or is empty; it appears when all is done.
        base: See :func:`.explain.explain`.
        settings: Likewise.
        language: Of the page, ``en`` or ``zh``.

    Raises:
        YoloAttnError: See :func:`.explain.explain`; FileError: the folder is not empty or cannot be written.
    """
    texts = Texts(TEXTS, language)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileError(f"{out}: is not empty. Choose a new or empty folder with {option('output')}.")
    shown: list[tuple[bytes, str]] = []
    taken: set[str] = set()
    with _folder(out) as folder:
        (folder / "pictures").mkdir()

        def each(done: Explained, found: Found) -> None:
            name = _free(Path(found.picture.name).stem, taken)
            with figures.style(texts.characters, "".join(done.classes.values()) + "".join(done.names)):
                figure = explain_figures.picture(done, found, texts)
                data = save_figure(figure, folder / "pictures" / name, ["png"])[0].read_bytes()
            if len(shown) < SHOWN:
                shown.append((_for_page(data), Path(found.picture.name).name))

        done = explain(checkpoint, pictures, base, settings, each)
        with figures.style(texts.characters, "".join(done.names)):
            drawn = {"curves": explain_figures.curves(done, texts), "receptive_field": explain_figures.fields(done, texts)}
            for name, figure in drawn.items():
                save_figure(figure, folder / name, ["svg", "png"])
            _page(done, texts, drawn, shown).write(folder / "explain.html")
        write_text(folder / "detections.csv", _table(done))
        write_text(folder / "explain.json", json.dumps(as_json(done), indent=1) + "\n")
    return done


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` when all is done; after an error or Ctrl-C nothing is left."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch(out.parent) as place:
            draft = place / "results"
            draft.mkdir()
            yield draft
            if out.is_dir():
                out.rmdir()  # empty, which Windows does not replace
            os.replace(draft, out)
    except OSError as exc:
        if exc.errno not in REFUSED:
            raise
        raise FileError(f"{out}: cannot be written: {exc.strerror or exc}. Choose another folder with {option('output')}.") from exc


def _for_page(png: bytes) -> bytes:
    """Return a picture as a JPEG of at most 1000 pixels in width: two dozen PNGs would make a page of 30 MB."""
    import cv2

    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    scale = min(1.0, 1000 / image.shape[1])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])[1])


def _free(stem: str, taken: set[str]) -> str:
    n, name = 1, stem
    while name.lower() in taken:  # some file systems ignore case
        n += 1
        name = f"{stem}-{n}"
    taken.add(name.lower())
    return name


def lines(done: Explained) -> list[str]:
    """Return what a terminal is told, in English."""
    texts = Texts(TEXTS, "en")
    out = [_counted(done, texts)]
    for name, chance in zip(done.names, done.chance):
        for measure, c in chance.items():
            out.append(
                f"{name}: {texts(measure)} {c.mean:.3f}{_range(c.low, c.high)}, shuffled weights {c.chance:.3f}"
                f" ({c.chance_low:.3f}, {c.chance_high:.3f}): {c.verdict}"
            )
        if chance["energy"].verdict == paired.WITHIN:
            out.append(texts("warning", name=name))
    for measure, d in done.difference.items():
        out.append(f"{done.names[1]} less {done.names[0]}: {texts(measure)} {_difference(d, texts)}")
    for k, row in enumerate(done.field_difference):
        for share, d in zip(SHARES, row):
            out.append(
                f"{done.names[1]} less {done.names[0]}: receptive field at stride {done.strides[0][k]}, side with {share:.0%}:"
                f" {_difference(d, texts, 1)}"
            )
    for name, gates in zip(done.names, done.gates):
        out += [f"{name}: gate {g} ({at}), inside the boxes less outside: {_difference(d, texts)}" for g, (at, d) in gates.items()]
    if done.difference:
        out.append(texts("one_each"))
    return out + _notes(done, texts)


def _counted(done: Explained, texts: Texts) -> str:
    told = dict(zip(done.names, (", ".join(map(str, r)) for r in done.layers)))
    rows = next(iter(told.values())) if len(set(told.values())) == 1 else "; ".join(f"{r} ({n})" for n, r in told.items())
    return texts(
        "counted", n=done.detections, images=len(done.images), h=done.size[0], w=done.size[1], rows=rows, seed=done.settings.seed
    )


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" ({low:.3f}, {high:.3f})"


def _difference(d: paired.Difference, texts: Texts, digits: int = 3) -> str:
    if math.isnan(d.mean):
        return "-"
    text = f"{d.mean:+.{digits}f}"
    if not math.isnan(d.p):
        text += f" ({d.low:+.{digits}f}, {d.high:+.{digits}f}), p = {d.p:.2g}"
    return f"{text}: {texts(d.verdict)}"


def _notes(done: Explained, texts: Texts) -> list[str]:
    def some(files: Sequence[str]) -> str:
        return ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")

    out = []
    if len(done.names) == 2:
        for s, name in enumerate(done.names):
            n = sum(f.only[s] for f in done.images)
            out += [texts("only", n=n, name=name)] if n else []
    for key in ("without", "skipped"):
        files = getattr(done, key)
        out += [texts(key, n=len(files), files=some(files))] if files else []
    out += [texts("left_out", n=done.left_out)] if done.left_out else []
    return out


def _page(done: Explained, texts: Texts, drawn: dict[str, Any], shown: Sequence[tuple[bytes, str]]) -> Page:
    name = done.names[-1]
    title = texts("title", name=name) if len(done.names) == 1 else texts("title_base", name=name, base=done.names[0])
    page = Page(title, texts.language)
    page.paragraph(_counted(done, texts), note=True)
    for who, chance in zip(done.names, done.chance):
        if chance["energy"].verdict == paired.WITHIN:
            page.paragraph(texts("warning", name=who))
    page.heading(texts("how"))
    how = "how_map" if done.settings.layers == "backbone" else "how_map_head"
    page.points([texts(how), texts("how_chance", draws=done.settings.draws), texts("how_numbers")])
    page.heading(texts("numbers"))
    page.table([texts(k) for k in ("detector", "measure", "value", "chance", "verdict")], _chance_rows(done, texts))
    if done.difference:
        page.heading(texts("differences"))
        rows = [[texts(m), *_cells(d), texts(d.verdict)] for m, d in done.difference.items()]
        page.table([texts(k) for k in ("measure", "difference", "p", "verdict")], rows)
        page.paragraph(texts("p_note"), note=True)
        page.paragraph(texts("one_each"))
    page.heading(texts("curves"))
    page.figure(figures.inline(drawn["curves"], "curves"), texts("curves_caption"))
    page.heading(texts("pictures"))
    if len(done.names) > 1:
        page.paragraph(texts("scale"), note=True)
    page.pictures(shown)
    if len(done.images) > len(shown):
        page.paragraph(texts("more_pictures", n=len(done.images) - len(shown)), note=True)
    page.heading(texts("field"))
    page.figure(figures.inline(drawn["receptive_field"], "field"), texts("field_caption", n=len(done.sides[0])))
    _field_table(page, done, texts)
    for who, gates in zip(done.names, done.gates):
        if gates:
            page.heading(f"{texts('gates')}: {who}")
            page.paragraph(texts("gates_note"), note=True)
            rows = [[g, at, *_cells(d), texts(d.verdict)] for g, (at, d) in gates.items()]
            page.table([texts("gate"), "", texts("inside"), texts("p"), texts("verdict")], rows)
    notes = _notes(done, texts)
    if notes:
        page.heading(texts("notes"))
        page.points(notes)
    page.paragraph(f"yolo_attn {__version__}", note=True)
    return page


def _chance_rows(done: Explained, texts: Texts) -> list[list[str | Cell]]:
    rows: list[list[str | Cell]] = []
    for name, chance in zip(done.names, done.chance):
        for measure, c in chance.items():
            shuffled = f"{c.chance:.3f} ({c.chance_low:.3f}, {c.chance_high:.3f})"
            value = f"{c.mean:.3f}" + ("" if math.isnan(c.low) else f" ({c.low:.3f}, {c.high:.3f})")
            verdict = Cell(texts(c.verdict), bold=c.verdict == paired.WITHIN)
            rows.append([name, texts(measure), Cell(value, c.mean), Cell(shuffled, c.chance), verdict])
    return rows


def _cells(d: paired.Difference, digits: int = 3) -> list[str | Cell]:
    if math.isnan(d.mean):
        return ["-", "-"]
    text = f"{d.mean:+.{digits}f}" + ("" if math.isnan(d.low) else f" ({d.low:+.{digits}f}, {d.high:+.{digits}f})")
    return [Cell(text, d.mean), "-" if math.isnan(d.p) else Cell(f"{d.p:.2g}", d.p)]


def _field_table(page: Page, done: Explained, texts: Texts) -> None:
    head = [texts("level"), *(f"{n}: {texts('side', share=f'{100 * q:.0f}')}" for n in done.names for q in SHARES)]
    levels = max(len(s) for s in done.strides)
    rows: list[list[str | Cell]] = []
    for k in range(levels):
        strides = dict.fromkeys(s[k] for s in done.strides if k < len(s))
        row: list[str | Cell] = [" / ".join(texts("stride", s=s) for s in strides)]
        for sides in done.sides:
            means = mean_sides(sides[:, k]) if k < sides.shape[1] else [math.nan] * len(SHARES)
            row += ["-" if math.isnan(v) else Cell(f"{v:.0f}", float(v)) for v in means]
        if done.field_difference:
            row += [_difference(d, texts, 1) for d in done.field_difference[k]]
        rows.append(row)
    if done.field_difference:
        head += [f"{texts('difference')}, {q:.0%}" for q in SHARES]
    page.table(head, rows)


def _table(done: Explained) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["image", "detector", "class", "confidence", "x1", "y1", "x2", "y2", *MEASURES, *(f"{m}_shuffled" for m in MEASURES)]
    )
    for found in done.images:
        for group in found.looks:
            for name, look in zip(done.names, group):
                c = look.candidate
                box = unletterbox(np.array([c.box]), found.picture.fit)[0]
                numbers = [*look.values, *look.drawn.mean(0)]
                writer.writerow(
                    [found.picture.name, name, done.classes.get(c.cls, c.cls), f"{c.score:.4f}", *(f"{v:.1f}" for v in box)]
                    + [f"{v:.4f}" for v in numbers]
                )
    return out.getvalue()


def as_json(done: Explained) -> dict[str, Any]:
    """Return every number, ready for JSON."""
    settings = {k: getattr(done.settings, k) for k in ("conf", "iou", "max_det", "limit", "draws", "layers", "seed")}
    detectors = []
    for s, name in enumerate(done.names):
        sides = [
            {"stride": stride, **{f"side_{q:.0%}": _none(float(v)) for q, v in zip(SHARES, mean_sides(done.sides[s][:, k]))}}
            for k, stride in enumerate(done.strides[s])
        ]
        detectors.append(
            {
                "name": name,
                "rows": done.layers[s],
                "chance": {m: paired.told(c) for m, c in done.chance[s].items()},
                "receptive_field": sides,
                "gates": {g: {"location": at, **paired.told(d)} for g, (at, d) in done.gates[s].items()},
                "only": sum(f.only[s] for f in done.images),
            }
        )
    return {
        "version": __version__,
        "settings": settings,
        "size": list(done.size),
        "images": len(done.images),
        "detections": done.detections,
        "without": done.without,
        "skipped": done.skipped,
        "left_out": done.left_out,
        "detectors": detectors,
        "difference": {m: paired.told(d) for m, d in done.difference.items()},
        "receptive_field_difference": [
            {f"side_{q:.0%}": paired.told(d) for q, d in zip(SHARES, row)} for row in done.field_difference
        ],
    }


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value
