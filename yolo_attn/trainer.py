"""The trainer of the ultralytics host, with the kit aboard.

Being defined here is half of its purpose: a worker of a multi-GPU run imports the trainer's class, and with it
the kit and its hook, whatever the version of the host.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer

__all__ = ["Trainer"]


class Trainer(DetectionTrainer):  # type: ignore[misc] # the host is untyped in its older versions
    """`YOLO("yolov5s_se.yaml").train(trainer=yolo_attn.Trainer, ...)`.

    Checkpoints are replaced in one step: a run that is killed while it saves keeps the last good one.
    """

    def save_model(self) -> Any:
        """Write `last.pt` and `best.pt` beside their places, then move them there."""
        last, best = self.last, self.best
        drafts = {Path(p): Path(p).with_name(f".{Path(p).name}") for p in (last, best)}
        self.last, self.best = drafts[Path(last)], drafts[Path(best)]
        try:
            saved = super().save_model()
            for target, draft in drafts.items():
                if draft.exists():
                    os.replace(draft, target)
        finally:
            self.last, self.best = last, best
            for draft in drafts.values():
                draft.unlink(missing_ok=True)
        return saved
