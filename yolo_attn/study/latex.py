"""`ablation.tex`: the table of an ablation, with check marks for module, place and start, as papers print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .statistics import BETTER, SAME, UNTOLD, WORSE
from .wording import Words

__all__ = ["best", "escape", "table"]

Rows = Sequence[Mapping[str, Any]]
MOST_MARKS = 8  # columns of check marks of one kind; of more, names stand in one column
CHECK = r"\checkmark"
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "\n": " ", "\r": " ",
}  # fmt: skip


def escape(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    return "".join(SPECIAL.get(c, c) for c in text)


def table(rows: Rows, words: Words, data: str) -> str:
    """Return the file.

    Args:
        rows: Of :func:`yolo_attn.study.verdict.judged`.
        words: The language.
        data: What the data set is called.
    """
    counts = sorted({int(r["finished"]) for r in rows if r["finished"]})  # not the same where a run failed or is missing
    seeds = words("up_to", low=counts[0], high=counts[-1]) if len(counts) > 1 else str(counts[0] if counts else 0)
    marks = _Marks(rows, words)
    figures = [
        (words("params") + " (M)", lambda r: _number(r["parameters"] and r["parameters"] / 1e6, 2), None),
        ("GFLOPs", lambda r: _number(r["gflops"], 2), None),
        (words("latency"), lambda r: _number(r["latency_ratio"], 2), None),
        ("mAP50", lambda r: _spread(r["mAP50"], r["mAP50_deviation"], 3), "mAP50"),
        ("mAP50-95", lambda r: _spread(r["mAP50-95"], r["deviation"], 3), "mAP50-95"),
    ]
    figures = [f for f in figures if any(f[1](r) != "--" for r in rows)]
    head = [words("config"), *marks.head, *(f[0] for f in figures)]
    columns = "l" + marks.columns + "r" * len(figures)
    lines = [
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{words('tex_caption_one' if counts == [1] else 'tex_caption', data=escape(data), seeds=seeds)}}}",
        "  \\label{tab:ablation}",
        "  \\small\\setlength{\\tabcolsep}{3pt}",
        "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",  # narrower where it does not fit
        f"  \\begin{{tabular}}{{{columns}}}",
        "    \\toprule",
        *marks.groups(len(figures)),
        "    " + " & ".join(escape(h) for h in head) + " \\\\",
        "    \\midrule",
    ]
    bold = {key: best(rows, key) for _, _, key in figures if key}
    for k, row in enumerate(rows):
        cells = [escape(str(row["config"])) + _sign(row), *marks.of(row)]
        for _, text, key in figures:
            cells.append(f"\\textbf{{{text(row)}}}" if key and k in bold[key] else text(row))
        lines.append("    " + " & ".join(cells) + " \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}}", ""]
    lines += ["  \\smallskip", f"  {{\\footnotesize {_footnote(rows, words)}}}", "\\end{table}", ""]
    needs = "% \\input this; it needs \\usepackage{booktabs,amssymb,graphicx}"
    if any("\u2e80" <= c <= "\uffef" for line in lines for c in line):  # of labels, or of a config's name
        needs += " and \\usepackage{ctex} with XeLaTeX or LuaLaTeX"
    return "\n".join([needs, *lines])


class _Marks:
    """Columns of check marks: one for each module, place and start that occurs."""

    def __init__(self, rows: Rows, words: Words) -> None:
        self.words = words
        self.kinds: list[tuple[str, str, list[str]]] = []
        for key, title in (("modules", "module"), ("places", "place"), ("starts", "start")):
            values = list(dict.fromkeys(v for r in rows for v in r[key]))
            if values:
                self.kinds.append((key, words(title), values if len(values) <= MOST_MARKS else []))

    @property
    def head(self) -> list[str]:
        out = []
        for _, title, values in self.kinds:
            out += [self.words.said(v) for v in values] if values else [title]
        return out

    @property
    def columns(self) -> str:
        return "".join("c" * len(values) if values else "l" for _, _, values in self.kinds)

    def groups(self, after: int) -> list[str]:
        """A line above the head that says what the check marks are of; none without any."""
        if not any(values for _, _, values in self.kinds):
            return []
        cells, rules, at = [""], [], 2
        for _, title, values in self.kinds:
            width = len(values) or 1
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(title)}}}" if values else "")
            if values:
                rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        return ["    " + " & ".join(cells + [""] * after) + " \\\\", "    " + " ".join(rules)]

    def of(self, row: Mapping[str, Any]) -> list[str]:
        out = []
        for key, _, values in self.kinds:
            out += [CHECK if v in row[key] else "" for v in values] if values else [escape(", ".join(row[key]))]
        return out


def _number(value: float | None, digits: int) -> str:
    return "--" if value is None else f"{value:.{digits}f}"


def _spread(value: float | None, spread: float | None, digits: int) -> str:
    if value is None:
        return "--"
    return f"{value:.{digits}f}" + ("" if spread is None else f"{{\\scriptsize\\,$\\pm$\\,{spread:.{digits}f}}}")


def best(rows: Rows, key: str) -> set[int]:
    """Return the rows that are highest as printed; equal ones are all set in bold."""
    there = [round(r[key], 3) for r in rows if r[key] is not None]
    return {k for k, r in enumerate(rows) if there and r[key] is not None and round(r[key], 3) == max(there)}


def _sign(row: Mapping[str, Any]) -> str:
    return {SAME: "$^\\dagger$", UNTOLD: "$^\\ddagger$"}.get(row.get("verdict", ""), "")


def _footnote(rows: Rows, words: Words) -> str:
    verdicts = {r.get("verdict") for r in rows}
    out, end = [words("tex_best")], words("stop").strip()
    if SAME in verdicts:
        out.append(f"$\\dagger$ {words('tex_same')}{end}")
    if UNTOLD in verdicts:
        out.append(f"$\\ddagger$ {words('tex_untold')}{end}")
    told = [r for r in rows if r.get("verdict") in (BETTER, WORSE)]
    for r in told:
        out.append(f"{escape(str(r['config']))}{words('colon')}{words.said(r['verdict'])}{words('comma')}p = {r['holm']:.2g}{end}")
    return " ".join(out)
