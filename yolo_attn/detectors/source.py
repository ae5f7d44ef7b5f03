"""A detector in PyTorch, opened: what every way of opening one gives, and what all of them need."""

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
    """A detector in PyTorch, in fp32 and eval mode, as it was trained.

    Args:
        path: What the user named.
        host: ``ultralytics`` or ``yolov5``.
        model: The network.
        task: ``detect`` and so on.
        imgsz: Height and width that it was trained with, or 640.
        handle: The ultralytics host's own wrapper around the network.
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
        """What the output means, a key of :data:`.runtime.boxes.LAYOUTS`."""
        return "anchor-free" if self.host == "ultralytics" else "anchor-based"


@contextlib.contextmanager
def quiet_host() -> Iterator[None]:
    """Keep the ultralytics host from installing packages, and its progress lines from the screen."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # read when the host is imported
    from ultralytics.utils import LOGGER, checks

    level, install = LOGGER.level, getattr(checks, "AUTOINSTALL", None)
    LOGGER.setLevel("CRITICAL")  # what goes wrong is raised, and told once
    if install is not None:
        checks.AUTOINSTALL = False
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        if install is not None:
            checks.AUTOINSTALL = install


def widen_classes(model: Any, state: dict[str, Any]) -> Any:
    """Give the head's class branches the hidden width that they have in `state`, in place; return the model.

    The width follows the number of classes, but a detector that was fine-tuned from one of more classes keeps that
    one's (ultralytics 8.4 does so to keep its weights): the YAML alone does not say it.
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
        if donor is None:  # as many classes as the width was made for
            with quiet_host():
                donor = type(model)({**model.yaml, "nc": int(last.shape[1])}, verbose=False)
        wide = getattr(donor.model[-1], name)
        if wide[0][-1].in_channels == last.shape[1]:
            for new, old in zip(wide, branches):
                new[-1] = torch.nn.Conv2d(new[-1].in_channels, old[-1].out_channels, 1)
            setattr(head, name, wide)
    return model
