"""What was seen of each module in each runtime: the table that ``tools/deploy_matrix.py`` makes, as data of the package."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import FileError
from ..files import read_text

__all__ = ["BAD", "COLUMNS", "EXACT", "PATH", "PRECISIONS", "RESULTS", "key_of", "matrix", "on_cpu", "read", "warnings_of"]

PATH = Path(__file__).with_name("deployment.csv")
COLUMNS = (
    "module", "format", "precision", "result", "difference", "compared", "missing", "extra", "version", "nodes", "rank",
    "beyond", "reason", "measured", "on_cpu",
)  # fmt: skip
PRECISIONS = ("fp32", "fp16", "int8")
EXACT = 1e-5  # of the output's scale: what the order of sums in fp32 makes
# A result, and what it says of a file.
RESULTS = {
    "exact": "equal to PyTorch within 1e-5 of the output's scale, detections equal",
    "close": "equal within the tolerance of the precision, detections equal; int8: the detections that fp32 makes",
    "converted": "converted, not proved: the runtime is for another machine",
    "loses": "int8: converted, and of the detections that fp32 makes, more than 5 % are missing or new",
    "differs": "converted, and computes something else",
    "crashes": "converted, and the runtime does not run it",
    "refused": "not converted",
}
BAD = ("differs", "crashes", "refused")


@functools.lru_cache(maxsize=1)
def read(path: Path = PATH) -> tuple[Mapping[str, str], ...]:
    """Return the lines of the table, by column; none where it has not been made.

    Of several lines of one module, format and precision, as a merge of two tables leaves them, the one that was measured
    last counts; of lines of one time the later one.

    Raises:
        FileError: A line does not have the table's columns; the message names it.
    """
    if not path.is_file():
        return ()
    lines = csv.reader(read_text(path, FileError).splitlines())
    remedy = "Correct it, or make it again: python tools/deploy_matrix.py"
    head = next(lines, [])
    if tuple(head) != COLUMNS:
        raise FileError(f"{path}, line 1: the columns are {', '.join(head)}; they should be {', '.join(COLUMNS)}. {remedy}")
    newest: dict[tuple[str, str, str], dict[str, str]] = {}
    for values in lines:
        row = dict(zip(COLUMNS, values))
        if len(values) != len(COLUMNS):
            raise FileError(f"{path}, line {lines.line_num}: has {len(values)} columns, not {len(COLUMNS)}. {remedy}")
        if row["result"] not in RESULTS or row["precision"] not in PRECISIONS:
            told = f"'{row['result']}' in '{row['precision']}'"
            raise FileError(f"{path}, line {lines.line_num}: {told} is no result and precision of the table. {remedy}")
        known = newest.get(key_of(row))
        if known is None or row["measured"] >= known["measured"]:
            newest[key_of(row)] = row
    return tuple(newest.values())


def key_of(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Return what a line is of: module, format and precision."""
    return row["module"], row["format"], row["precision"]


def warnings_of(modules: Iterable[str], format: str, precision: str) -> list[str]:
    """Return what to tell before modules are exported to a format in which one of them failed.

    Args:
        modules: Registered names.
        format: A format's name.
        precision: ``fp32``, ``fp16`` or ``int8``, which is made from fp32 and fails where that does.
    """
    wanted = (precision, "fp32") if precision == "int8" else (precision,)
    lines = []
    for row in read():
        known = row["module"] in modules and row["format"] == format and row["precision"] in wanted
        if known and row["result"] in (*BAD, "loses"):
            version = f" ({format} {row['version']})" if row["version"] else ""
            lines.append(f"{row['module']} {row['result']} here when it was tried{version}: {row['reason']}")
    return lines


def matrix(rows: Iterable[Mapping[str, str]], precision: str = "fp32") -> tuple[list[str], list[list[str]]]:
    """Return the table by module and format: the headings, and a line for each module with its nodes and highest rank."""
    kept = [r for r in rows if r["precision"] == precision]
    formats = list(dict.fromkeys(sorted((r["format"] for r in kept), key=lambda f: (f != "onnx", f))))
    about = {r["module"]: (str(r["nodes"]), str(r["rank"]), r["beyond"]) for r in kept}
    cell = {(r["module"], r["format"]): _cell(r) for r in kept}
    names = sorted(about, key=str.lower)
    return ["module", "nodes", "rank", *formats], [
        [n, *about[n][:2], *(cell.get((n, f), "") for f in formats)] for n in names
    ]


def on_cpu(rows: Iterable[Mapping[str, str]]) -> list[list[str]]:
    """Return module, format, precision and operators of the lines where an NPU's compiler leaves some to the CPU."""
    return [[*key_of(r), r["on_cpu"]] for r in rows if r["on_cpu"]]


def _cell(row: Mapping[str, str]) -> str:
    if row["precision"] == "int8" and row["compared"]:
        return f"{row['result']} {1 - int(row['missing']) / max(int(row['compared']), 1):.1%}"
    return f"{row['result']} {row['difference']}".strip() if row["result"] in ("close", "differs") else row["result"]
