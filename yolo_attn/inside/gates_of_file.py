"""From a file to its report on gates: open the detector, check what was asked for, measure, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation import dataset
from ..log import Progress
from ..pages.texts import check_language
from . import gate_report, gate_test
from .gate_words import Words, sentence, summary

__all__ = ["Done", "run"]


@dataclass
class Done:
    """What to tell the user.

    Args:
        page: The report.
        sentences: One for each row, and remarks.
        lines: Cells of the frozen-gate test.
        numbers: For JSON.
    """

    page: Path
    sentences: list[str]
    lines: list[list[str]]
    numbers: dict[str, Any]


def run(
    weights: str,
    data: str,
    *,
    output: str | None = None,
    classes: Sequence[str] = (),
    host: str | None = None,
    language: str = "en",
    **options: Any,
) -> Done:
    """Measure the gates of a file's detector and write the report; the other options are those of :func:`.gate_test.measure`.

    Raises:
        YoloAttnError: As there, and what cannot be opened or written.
    """
    from ..detectors import opening
    from ..detectors.classic import use_host

    check_language(language)
    dataset.check(data)
    if host and host not in ("ultralytics", "yolov5"):
        use_host(host)
    source = opening.open_source(weights)
    file = Path(source.path)
    target = gate_report.folder(output or file.with_name(f"{file.stem}_gates"))
    gate_test.check_classes(source, data, classes, options.get("most", 500))
    measured = gate_test.measure(source, data, tell=Progress(), **options)
    shown = gate_test.chosen_classes(measured, classes)
    page = gate_report.write(measured, file.name, target, shown, language)
    words = Words("en")
    cells = []
    for what, value, change, low, high in summary(measured, words):
        sign = "" if change is None else "+"
        ends = "-" if low is None or high is None else f"{low:{sign}.4f} to {high:{sign}.4f}"
        cells.append([what, f"{value:.4f}", "-" if change is None else f"{change:+.4f}", ends])
    said = [*(sentence(row, words) for row in measured.rows), *(f"{k}: no gate: {v}" for k, v in measured.without.items())]
    return Done(page, [*said, *measured.notes], cells, gate_report.as_json(measured))
