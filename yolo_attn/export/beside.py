"""Files that an earlier export left beside those of this one, and that are of other weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..runtime.proved import read_report
from .formats.table import NAMES, suffix_of
from .report import path_of

__all__ = ["of_other_weights"]

MADE = {name: suffix_of(name) for name in NAMES if name != "bundle"}
INT8 = "_int8"


def of_other_weights(results: Iterable[tuple[Path, dict[str, Any]]]) -> list[str]:
    """Return one line for each file of another format or precision that is not of the weights that were exported.

    Args:
        results: What one export wrote: each file with its report.
    """
    written, stems = set(), {}
    for path, report in results:
        written.add(path)
        if "int8" in report:
            written.add(Path(report["int8"]["path"]))
        if isinstance(report.get("onnx"), str):  # what an engine was built from
            written.add(Path(report["onnx"]))
        suffix = next((s for s in MADE.values() if path.name.endswith(s)), "")
        if suffix and "weights" in report:
            stems[path.with_name(path.name[: -len(suffix)])] = report["weights"]
    lines = []
    for stem, weights in stems.items():
        for kind in ("", INT8):
            for suffix in MADE.values():
                other = stem.with_name(f"{stem.name}{kind}{suffix}")
                if other in written or not other.exists():
                    continue
                left = read_report(other)
                if left is not None and left.get("weights") == weights:
                    continue
                if left is None and not kind:  # of a host's own export, which tells of no proof
                    continue
                told = "of other weights than this export" if left and "weights" in left else "of an earlier export, whose weights are not known"
                lines.append(f"{other} is {told}: export it again, or remove it and {path_of(other).name}")
    return lines
