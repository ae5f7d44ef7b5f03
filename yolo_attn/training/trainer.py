"""The trainer of the ultralytics host, with the kit aboard.

Being defined here is half of its purpose: a worker of a multi-GPU run imports the trainer's class, and with it
the kit and its hook, whatever the version of the host.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from . import runs

__all__ = ["Trainer"]


class Trainer(DetectionTrainer):  # type: ignore[misc] # the host is untyped in its older versions
    """`YOLO("yolov5s_se.yaml").train(trainer=yolo_attn.Trainer, ...)`.

    Checkpoints are replaced in one step: a run that is killed while it saves, or while it strips what it saved, keeps
    whole ones. One process at a time trains in a folder; a run that is resumed goes on in the folder that was named.
    """

    def check_resume(self, *args: Any, **kwargs: Any) -> None:
        """Go on in the folder of the checkpoint that was named, also where the run has been copied or moved."""
        super().check_resume(*args, **kwargs)
        overrides = next(iter(args), kwargs.get("overrides")) or {}
        if self.args.resume and isinstance(self.args.resume, str) and not overrides.get("save_dir"):
            self.args.save_dir = str(runs.folder_to_resume(Path(self.args.resume), self.args.save_dir))

    def train(self) -> Any:
        """Train with the run's folder locked.

        Raises:
            FileError: Another process trains in it.
        """
        if os.environ.get("LOCAL_RANK", "-1") != "-1":  # a worker of several: who launched it holds the lock
            return super().train()
        with runs.held(Path(self.save_dir)):
            return super().train()

    def resume_training(self, *args: Any, **kwargs: Any) -> None:
        """Forget the epochs of the log that the checkpoint does not know: they are trained again."""
        super().resume_training(*args, **kwargs)
        if self.resume and os.environ.get("RANK", "-1") in ("-1", "0"):
            runs.trim_log(Path(self.csv), self.start_epoch)

    def save_model(self) -> Any:
        """Write the checkpoints into a folder beside their places, then move each to its place."""
        last, best, folder = self.last, self.best, self.wdir
        Path(folder).mkdir(parents=True, exist_ok=True)
        with runs.published_to(Path(folder)) as drafts:
            self.last, self.best, self.wdir = (type(last)(drafts / p) for p in (Path(last).name, Path(best).name, ""))
            try:
                return super().save_model()
            finally:
                self.last, self.best, self.wdir = last, best, folder

    def final_eval(self) -> Any:
        """Strip the optimizer and validate as the host does; the stripped files replace the others at once."""
        with runs.whole_checkpoints(torch):
            return super().final_eval()
