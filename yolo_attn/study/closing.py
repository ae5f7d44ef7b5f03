"""What follows a study's last run: latency of each config, the rows, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import latency, report, results, verdict

__all__ = ["close"]


def close(folder: Path, language: str = "en", *, timed: bool = True) -> tuple[list[dict[str, Any]], Path]:
    """Write the report of a study, finished or not.

    Args:
        folder: Of the study.
        language: Of the report, ``en`` or ``zh``.
        timed: Measure ONNX latency where it has not been measured.

    Returns:
        One row for each config, see :func:`yolo_attn.study.verdict.judged`, and the page.

    Raises:
        YoloAttnError: It is no study, no run of the baseline has finished, or the disk refuses.
    """
    found = results.of_folder(folder)
    if timed:
        first = {c: found.places[next(iter(runs))] for c in found.configs if (runs := found.finished(c))}
        files = {c: best for c, place in first.items() if (best := place / "weights" / "best.pt").is_file()}
        if found.baseline in files:
            latency.measure(folder, files, int(found.conditions["imgsz"]), str(found.conditions["host"]))
            found = results.of_folder(folder)
    rows = verdict.judged(found)
    return rows, report.write(found, rows, language)
