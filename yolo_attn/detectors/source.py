"""The opened detector, and helpers that every way of opening one shares."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..weights.attention import attention_used

__all__ = ["Source", "attention_used", "quiet_host", "widen_classes"]


@dataclass
class Source:
    """A detector in PyTorch, in fp32 and eval mode, not fused.

    Args:
        path: The path that the user gave.
        host: ``ultralytics`` or ``yolov5``.
        model: The network.
        task: ``detect``, ``segment``, ...
        imgsz: Height and width that it was trained with, in pixels, or 640.
        handle: The ultralytics wrapper around the network; None for other hosts.
        notes: Remarks for the user.
    """

    path: Path
    host: str
    model: Any
    task: str = "detect"
    imgsz: tuple[int, int] = (640, 640)
    handle: Any = None
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> dict[int, str]:
        """Class number to name."""
        names = getattr(self.model, "names", None) or {}
        return (
            dict(enumerate(names)) if isinstance(names, (list, tuple)) else {int(k): str(v) for k, v in names.items()}
        )

    @property
    def stride(self) -> int:
        """The largest stride of the head."""
        return int(max(self.model.stride))

    @property
    def layout(self) -> str:
        """Layout of the output, a key of :data:`yolo_attn.runtime.boxes.LAYOUTS`."""
        return "anchor-free" if self.host == "ultralytics" else "anchor-based"


@contextlib.contextmanager
def quiet_host() -> Iterator[None]:
    """Keep ultralytics from installing packages and from printing."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # read when the host is imported
    from ultralytics.utils import LOGGER, checks

    level, install = LOGGER.level, getattr(checks, "AUTOINSTALL", None)
    LOGGER.setLevel("CRITICAL")  # errors are raised, and so reported once
    if install is not None:
        checks.AUTOINSTALL = False
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        if install is not None:
            checks.AUTOINSTALL = install


def widen_classes(model: Any, state: dict[str, Any]) -> Any:
    """Set the hidden width of the head's class branches to that in `state`, in place.

    The width depends on the number of classes, but a detector that was fine-tuned from one with more classes keeps
    the wider branches (ultralytics 8.4 does so to keep their weights), which the YAML does not tell.

    Args:
        model: The network.
        state: The state dict that it will load.

    Returns:
        The model.
    """
    import torch

    head: Any = model.model[-1]
    donor: Any = None
    for name in ("cv3", "one2one_cv3"):
        branches: Any = getattr(head, name, None) or [None]
        if not isinstance(branches[0], torch.nn.Sequential):
            continue
        last = state.get(f"model.{head.i}.{name}.0.{len(branches[0]) - 1}.weight")
        if last is None or last.ndim != 4 or last.shape[1] == branches[0][-1].in_channels:
            continue
        if donor is None:  # with the number of classes that gives this width
            with quiet_host():
                donor = type(model)({**model.yaml, "nc": int(last.shape[1])}, verbose=False)
        wide = getattr(donor.model[-1], name)
        if wide[0][-1].in_channels == last.shape[1]:
            for new, old in zip(wide, branches):
                new[-1] = torch.nn.Conv2d(new[-1].in_channels, old[-1].out_channels, 1)
            setattr(head, name, wide)
    return model
