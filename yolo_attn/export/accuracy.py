"""mAP of an exported file beside PyTorch's, on the labelled images of a data set."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..detectors.source import Source
from ..errors import DataError
from ..evaluation.figures import Split
from ..evaluation.runs import detections, figures_of, labelled, of_classes, remarks, remarks_on_classes

__all__ = ["LIMITS", "Accuracy", "told"]

SPLIT = "val"
LIMITS = {"fp32": 0.001, "fp16": 0.01}  # differences of mAP50-95 above which more than rounding is the cause


class _Run:
    """What returns several outputs, as what is measured."""

    def __init__(self, run: Callable[[Any], list[Any]], layout: str) -> None:
        self.run = run
        self.layout: str | None = layout

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the main output."""
        return np.asarray(self.run(x)[0])


class Accuracy:
    """The measure for all files of one export: PyTorch is run once for each size.

    Args:
        data: The data set's YAML.

    Raises:
        DataError: It cannot be used, or its validation images have no labels.
    """

    def __init__(self, data: str) -> None:
        self.data, self._split = data, labelled(data, SPLIT)
        self._reference: dict[Any, tuple[list[Any], list[Any]]] = {}

    def split(self, source: Source) -> Split:
        """Return the images with the classes of a detector.

        Raises:
            DataError: The data set is of other classes.
        """
        split = of_classes(self._split, list(source.names.values()), self.data, source.path)
        if not any(0 <= c < len(split.names) for c in split.classes()):
            raise DataError(f"{self.data}: no label of '{SPLIT}:' is of a class that {source.path} detects")
        return split

    def measure(
        self, run: Callable[[Any], list[Any]], network: Callable[[Any], list[Any]], layout: str, source: Source, report: dict[str, Any]
    ) -> dict[str, Any]:
        """Return mAP50 and mAP50-95 of PyTorch and of a file, with the number of images.

        Args:
            run: The file, a function from a batch to its outputs.
            network: PyTorch's network, likewise, with tensors.
            layout: Layout of both main outputs, a key of :data:`yolo_attn.runtime.boxes.LAYOUTS`.
            source: The detector.
            report: The file's report; the seconds that this took are added.
        """
        import torch

        def pytorch(x: np.ndarray) -> list[Any]:
            with torch.inference_mode():
                return [network(torch.from_numpy(x))[0].float().numpy()]

        began = time.perf_counter()
        split, size = self.split(source), (report["imgsz"][0], report["imgsz"][1])
        key = size, layout, id(source)
        if key not in self._reference:
            truth, found = detections({"PyTorch": _Run(pytorch, layout)}, split, size)
            self._reference[key] = truth, found["PyTorch"]
        truth, reference = self._reference[key]
        name = report.get("format", "onnx")
        rows = detections({name: _Run(run, layout)}, split, size)[1][name]
        report["seconds"]["map"] = round(time.perf_counter() - began, 2)
        return {
            "data": str(Path(self.data)),
            "split": SPLIT,
            "images": len(truth),
            "pytorch": figures_of(truth, reference, split),
            "file": figures_of(truth, rows, split),
            "notes": remarks(split, self.data) + remarks_on_classes(split, list(source.names.values()), self.data, source.path),
        }


def told(measured: dict[str, Any], precision: str) -> list[str]:
    """Return what to tell of the result of :meth:`Accuracy.measure`, in lines."""
    (a50, a), (b50, b) = ([measured[k][m] or 0.0 for m in ("mAP50", "mAP50-95")] for k in ("pytorch", "file"))
    lines = [
        f"mAP50-95 {b:.4f}, PyTorch {a:.4f}; mAP50 {b50:.4f}, PyTorch {a50:.4f}; on the {measured['images']} images of "
        f"'{measured['split']}' of {measured['data']}"
    ]
    lines += [f"note: {note}" for note in measured.get("notes", ())]
    most = LIMITS[precision]
    if abs(b - a) > most:
        lines.append(
            f"note: mAP50-95 differs from PyTorch's by {b - a:+.4f}, and in {precision} by no more than {most} as a rule: "
            f"look at the file's detections before you deploy it"
        )
    return lines
