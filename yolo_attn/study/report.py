"""Write a report: `report.html`, `report.md`, `ablation.tex` and `figures/`, from whatever runs there are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import expand, read_text, write_text
from ..pages.figures import inlined, save, style
from ..pages.html import Cell, Page
from . import drawing, latency, latex
from .results import Note, Results
from .verdict import METRIC, number
from .wording import Words

__all__ = ["check_language", "folder", "notes", "write"]

KINDS = ("svg", "pdf")
PAGE = "report.html"
OURS = {PAGE, "report.md", "ablation.tex", "figures", "runs", latency.FILE}  # what a report that was interrupted leaves
Rows = Sequence[Mapping[str, Any]]


def check_language(language: str) -> None:
    """Check that a report can be written in a language, before anything is trained for it.

    Raises:
        UsageError: There are no texts in it.
        FileError: No font of this machine has its characters; says how to get one.
    """
    from ..pages import fonts

    fonts.require(Words(language).characters)


def folder(name: str) -> Path:
    """Return the folder of a report, made where there is none.

    Raises:
        FileError: It holds something that is no report, or cannot be made.
    """
    path = Path(os.path.abspath(expand(name)))
    if path.exists() and not path.is_dir():
        raise FileError(f"{path} is a file. Choose a folder for the report: -o FOLDER")
    if path.is_dir() and not (path / PAGE).is_file() and {p.name for p in path.iterdir() if p.name[0] != "."} - OURS:
        raise FileError(f"{path} holds files and no {PAGE}. Choose a new or an empty folder for the report: -o FOLDER")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    return path


def write(results: Results, rows: Rows, language: str = "en") -> Path:
    """Write all files of a report into the results' folder.

    Args:
        results: Of which the report is.
        rows: Of :func:`yolo_attn.study.verdict.judged`; of single runs without a verdict where there is no baseline.
        language: ``en`` or ``zh``.

    Returns:
        The page.

    Raises:
        FileError: The disk refuses, or no font has the characters.
    """
    words = Words(language)
    try:
        (results.folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileError(f"{results.folder}: cannot be written: {exc.strerror or exc}") from exc
    said = notes(results, words)
    data = _data(results, words)
    with style(words.characters, _names(results)):
        drawn = _drawn(results, rows, words)
        inline = {}
        for name, (figure, caption) in drawn.items():
            svg, _ = save(figure, results.folder / "figures" / name, KINDS)
            inline[name] = inlined(read_text(svg, FileError), name), caption
        for name in set(_NAMES) - set(drawn):  # of an earlier report, when there was something to draw
            for kind in KINDS:
                (results.folder / "figures" / f"{name}.{kind}").unlink(missing_ok=True)
    write_text(results.folder / "ablation.tex", latex.table(rows, words, data))
    write_text(results.folder / "report.md", _markdown(results, rows, words, drawn, said))
    page = results.folder / PAGE
    _page(results, rows, words, inline, said).write(page)
    return page


_NAMES = ("training", "precision-recall", "parameters", "latency", "classes")


def _drawn(results: Results, rows: Rows, words: Words) -> dict[str, tuple[Any, str]]:
    """Each figure that there is something to draw for, with its caption."""
    one = all(len(results.finished(c)) < 2 for c in results.configs)
    shown = len({n for held in drawing.class_differences(results).values() for n in held})
    some = words("fig_classes_some", shown=drawing.MOST_CLASSES, all=shown) if shown > drawing.MOST_CLASSES else ""
    base = results.baseline
    found = {
        "training": (drawing.training(results, words), words("fig_training_one" if one else "fig_training")),
        "precision-recall": (drawing.precision_recall(results, words), words("fig_pr")),
        "parameters": (drawing.parameters(rows, words), words("fig_parameters", metric=METRIC)),
        "latency": (
            drawing.latency(rows, words), words("fig_latency", metric=METRIC, imgsz=latency.side(results.conditions.get("imgsz")))
        ),
        "classes": (
            drawing.classes(results, words), words("fig_classes", metric=METRIC, baseline=base) + (" " + some if some else "")
        ),
    }  # fmt: skip
    return {name: (figure, caption) for name, (figure, caption) in found.items() if figure is not None}


def _names(results: Results) -> str:
    """The characters of what the user named: configs and classes."""
    names = set(results.configs)
    for d in results.records.values():
        names |= set((d.get("figures") or {}).get("classes") or {})
    return "".join(sorted(set("".join(names))))


def _data(results: Results, words: Words) -> str:
    data = str(results.conditions.get("data") or "")
    return Path(data).stem if data else words("embedded" if results.planned else "unnamed")


def notes(results: Results, words: Words) -> list[str]:
    """Return what a reader must know: runs that failed or are missing, what could not be measured or was left out."""
    return [words(n.key, **n.fields) for n in (*_remarks(results), *results.notes)]


def _remarks(results: Results) -> list[Note]:
    """What the records themselves say: runs that failed or are missing, latency that could not be measured."""
    out = []
    done = {r for c in results.configs for r in results.finished(c)}
    missing = [r.name for r in results.places if r not in done]
    if missing and results.planned:
        out.append(Note("missing_runs", {"n": len(missing), "all": len(results.places), "names": ", ".join(missing)}))
    for run, d in results.records.items():
        if d["status"] == "failed":
            out.append(Note("failed_run", {"run": run.name, "reason": d.get("reason")}))
    for config, found in results.latency.items():
        if found.reason:
            out.append(Note("no_latency", {"config": config, "reason": found.reason}))
    return out


# -- tables, once for all forms


def _main(rows: Rows, words: Words) -> tuple[list[str], list[list[Cell]]]:
    """The table of configs: figures, and the best mAP in bold."""
    best = latex.best(rows, METRIC)
    head, columns = [], []

    def column(title: str, cells: list[Cell]) -> None:
        if any(c.text not in ("", "-") for c in cells):
            head.append(title)
            columns.append(cells)

    column(words("config"), [Cell(str(r["config"])) for r in rows])
    for key in ("modules", "places", "starts"):
        titles = {"modules": "module", "places": "place", "starts": "start"}
        column(words(titles[key]), [Cell(", ".join(map(words.said, r[key])) or "-") for r in rows])
    column(words("runs"), [Cell(str(r["finished"]), r["finished"]) for r in rows])
    column(METRIC, [_spread(r[METRIC], r["deviation"], bold=k in best) for k, r in enumerate(rows)])
    column("mAP50", [_spread(r["mAP50"], r["mAP50_deviation"]) for r in rows])
    for key, title in (("AP_small", "small"), ("AP_medium", "medium"), ("AP_large", "large")):
        column(words(title), [_plain(r[key]) for r in rows])
    for key in ("precision", "recall"):
        column(words(key), [_plain(r[key]) for r in rows])
    column(words("parameters"), [_count(r["parameters"]) for r in rows])
    column("GFLOPs", [_plain(r["gflops"], 2) for r in rows])
    column(words("latency_ms"), [_spread(r["latency_ms"], r["latency_spread"], 2) for r in rows])
    column(words("latency"), [_ratio(r) for r in rows])
    column(words("minutes"), [_plain(r["minutes"], 1) for r in rows])
    return head, [list(cells) for cells in zip(*columns)]


def _verdicts(rows: Rows, words: Words) -> tuple[list[str], list[list[Cell]]]:
    """The table of verdicts: one row for each config but the baseline."""
    keys = ("config", "verdict", "difference", "interval", "holm", "seeds_to_tell", "images_interval")
    body = []
    for r in rows[1:]:
        body.append(
            [
                Cell(str(r["config"])), Cell(words.said(str(r["verdict"])), title=words.said(str(r["why"]))),
                Cell("-" if r["difference"] is None else f"{r['difference']:+.3f}", r["difference"]),
                _interval(r["low"], r["high"]), _plain(r["holm"]),
                Cell("-" if r["seeds_to_tell"] is None else str(r["seeds_to_tell"]), r["seeds_to_tell"]),
                _interval(r["images_low"], r["images_high"]),
            ]
        )  # fmt: skip
    return [words(k) for k in keys], body


def _classes(rows: Rows, words: Words) -> tuple[list[str], list[list[Cell]]]:
    names = list(dict.fromkeys(n for r in rows for n in r["classes"]))
    head = [words("classes"), *(str(r["config"]) for r in rows)]
    return head, [[Cell(n), *(_plain(r["classes"].get(n)) for r in rows)] for n in names]


def _runs(results: Results, words: Words) -> tuple[list[str], list[list[Cell]]]:
    head = [words("run"), words("config"), words("seed"), words("status"), METRIC, "mAP50", words("minutes")]
    body = []
    for run, d in results.records.items():
        had = d.get("figures") or {}
        seconds = d.get("seconds")
        body.append(
            [
                Cell(str(d.get("origin") or run.name)), Cell(run.config), Cell(str(run.seed), run.seed),
                Cell(words(str(d["status"])), title=str(d.get("reason") or "")), _plain(had.get(METRIC)),
                _plain(had.get("mAP50")), _plain(None if seconds is None else seconds / 60, 1),
            ]
        )  # fmt: skip
    return head, body


def _plain(value: float | None, digits: int = 3) -> Cell:
    return Cell(number(value, digits), value)


def _count(value: int | None) -> Cell:
    return Cell("-" if value is None else f"{value:,}", value)


def _spread(value: float | None, spread: float | None, digits: int = 3, bold: bool = False) -> Cell:
    text = number(value, digits) + ("" if spread is None or value is None else f" ± {spread:.{digits}f}")
    return Cell(text, value, bold=bold)


def _ratio(row: Mapping[str, Any]) -> Cell:
    low, high = row["latency_low"], row["latency_high"]
    ends = "" if low == high else f" ({low:.2f} … {high:.2f})"
    return Cell(number(row["latency_ratio"], 2) + ends, row["latency_ratio"])


def _interval(low: float | None, high: float | None) -> Cell:
    return Cell("-" if low is None or high is None else f"{low:+.3f} … {high:+.3f}", low)


def _conditions(results: Results, words: Words) -> list[tuple[str, str]]:
    held = results.conditions
    out = [(words("data"), str(held["data"]) if held.get("data") else words("embedded" if results.planned else "unnamed"))]
    if "weights" in held:
        out.append((words("weights"), str(held["weights"] or words("scratch"))))
    for key in ("host", "epochs", "imgsz", "seeds"):
        if held.get(key) is not None:
            out.append((words(key), str(held[key])))
    if any(not found.reason for found in results.latency.values()):
        out.append((words("latency_how"), words("latency_said")))
    return out


# -- the forms


def _lines(results: Results, rows: Rows, words: Words) -> list[str]:
    if not any("verdict" in r for r in rows):
        return []
    return [f"{r['config']}{words('colon')}{words.verdict(r)}" for r in rows[1:]]


def _measured(rows: Rows, words: Words) -> str:
    first = next((r for r in rows if r["split"]), None)
    if first is None:
        return words("measured_logs", metric=METRIC)
    return words("measured", split=first["split"], images=first["images"])


def _title(results: Results, words: Words) -> str:
    return words("title" if results.planned else "title_runs")


def _page(
    results: Results, rows: Rows, words: Words, drawn: Mapping[str, tuple[str, str]], notes: Sequence[str]
) -> Page:
    page = Page(_title(results, words), words.language)
    lines = _lines(results, rows, words)
    page.heading(words("summary"))
    if lines:
        page.paragraph(words("beside", baseline=results.baseline, metric=METRIC))
        page.table(*_verdicts(rows, words))
        page.points(lines)
        page.paragraph(words("intervals", coverage=words("coverage")), note=True)
    page.heading(words("configs"))
    page.table(*_main(rows, words), _measured(rows, words))
    if notes:
        page.heading(words("remarks"))
        page.points(notes)
    page.heading(words("figures"))
    for svg, caption in drawn.values():
        page.figure(svg, caption)
    if any(r["classes"] for r in rows):
        page.heading(words("classes"))
        page.table(*_classes(rows, words), METRIC)
    page.heading(words("all_runs"))
    page.table(*_runs(results, words))
    page.heading(words("conditions"))
    page.points([f"{key}{words('colon')}{value}" for key, value in _conditions(results, words)])
    return page


def _markdown(
    results: Results, rows: Rows, words: Words, drawn: Mapping[str, tuple[Any, str]], notes: Sequence[str]
) -> str:
    out = [f"# {_title(results, words)}", ""]
    lines = _lines(results, rows, words)
    if lines:
        out += [f"## {words('summary')}", "", words("beside", baseline=_md(results.baseline), metric=METRIC), ""]
        out += [*(f"- {_md(line)}" for line in lines), "", words("intervals", coverage=words("coverage")), ""]
    out += [f"## {words('configs')}", "", _measured(rows, words), "", *_md_table(*_main(rows, words)), ""]
    if notes:
        out += [f"## {words('remarks')}", "", *(f"- {_md(n)}" for n in notes), ""]
    if drawn:
        out += [f"## {words('figures')}", ""]
    for name, (_, caption) in drawn.items():
        out += [f"![{_md(caption)}](figures/{name}.svg)", "", _md(caption), ""]
    if any(r["classes"] for r in rows):
        out += [f"## {words('classes')}", "", *_md_table(*_classes(rows, words)), ""]
    out += [f"## {words('all_runs')}", "", *_md_table(*_runs(results, words)), ""]
    out += [f"## {words('conditions')}", ""]
    out += [f"- {key}{words('colon')}{_md(value)}" for key, value in _conditions(results, words)]
    return "\n".join(out) + "\n"


def _md(text: str) -> str:
    """A text that Markdown shows as it is: no markup of a class's name, no end of a cell."""
    for c in "\\`*_<>[]|":
        text = text.replace(c, "\\" + c)
    return text.replace("\n", " ")


def _md_table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    lines = [list(map(_md, head)), ["---"] * len(head)]
    lines += [[f"**{_md(c.text)}**" if c.bold else _md(c.text) for c in row] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
