"""What was seen of each module in each runtime: the table that ``tools/deploy_matrix.py`` makes, as data of the package."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import FileError
from ..files import read_text

__all__ = ["COLUMNS", "EXACT", "PATH", "RESULTS", "matrix", "read", "warnings_of"]

PATH = Path(__file__).with_name("deployment.csv")
COLUMNS = (
    "module", "format", "precision", "result", "difference", "compared", "missing", "extra", "version", "nodes", "rank",
    "beyond", "reason",
)  # fmt: skip
EXACT = 1e-5  # of the output's scale: what the order of sums in fp32 makes
# A result, and what it says of a file.
RESULTS = {
    "exact": "equal to PyTorch within 1e-5 of the output's scale, detections equal",
    "close": "equal within the tolerance of the precision, detections equal",
    "converted": "converted, not proved: the runtime is for another machine",
    "differs": "converted, and computes something else",
    "crashes": "converted, and the runtime does not run it",
    "refused": "not converted",
}
BAD = ("differs", "crashes", "refused")


@functools.lru_cache(maxsize=1)
def read() -> tuple[Mapping[str, str], ...]:
    """Return the lines of the table, by column; none where it has not been made."""
    if not PATH.is_file():
        return ()
    return tuple(csv.DictReader(read_text(PATH, FileError).splitlines()))


def warnings_of(modules: Iterable[str], format: str, precision: str) -> list[str]:
    """Return what to tell before modules are exported to a format in which one of them failed.

    Args:
        modules: Registered names.
        format: A format's name.
        precision: ``fp32``, ``fp16`` or ``int8``; int8 fails where fp32 does.
    """
    wanted = "fp32" if precision == "int8" else precision
    lines = []
    for row in read():
        if row["module"] in modules and row["format"] == format and row["precision"] == wanted and row["result"] in BAD:
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


def _cell(row: Mapping[str, str]) -> str:
    return f"{row['result']} {row['difference']}".strip() if row["result"] in ("close", "differs") else row["result"]
