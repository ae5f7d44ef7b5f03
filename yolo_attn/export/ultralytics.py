"""Export detectors of ultralytics with its own exporter, without side effects on the model or beside the checkpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..detectors.source import Source, quiet_host
from ..hook.install import repair

__all__ = ["given_back", "write_onnx"]


def write_onnx(
    source: Source, draft: Path, size: tuple[int, int], dynamic: bool, opset: int | None, nms: bool, simplify: bool
) -> None:
    """Write a detector of ultralytics as ONNX into `draft`; output (B, 4 + classes, N), or (1, 300, 6) with NMS."""
    model = source.model
    options: dict[str, Any] = {"format": "onnx", "imgsz": list(size), "dynamic": dynamic, "simplify": simplify}
    if opset is not None:
        options["opset"] = opset
    if nms:
        options["nms"] = True
    repair()
    with quiet_host(), given_back(model):
        # The host writes beside the checkpoint, or into the working directory for a YAML.
        model.pt_path = str(draft.with_suffix(".pt"))
        written = Path(source.handle.export(**options, device="cpu"))
    if written != draft:
        os.replace(written, draft)


@contextlib.contextmanager
def given_back(model: Any) -> Iterator[None]:
    """Restore the attributes that the host's exporter sets."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    names, path, end2end = model.names, getattr(model, "pt_path", None), getattr(model, "end2end", None)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
        model.names, model.pt_path = names, path
        if end2end is not None:
            with contextlib.suppress(AttributeError):
                model.end2end = end2end
