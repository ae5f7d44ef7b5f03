"""A trainer of the ultralytics host that works with the kit in every process.

It is a class of the kit so that the workers of a multi-GPU run, which import the trainer's class, import the kit and
its parse hook, in every version of the host.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from . import runs

__all__ = ["Trainer"]


class Trainer(DetectionTrainer):  # type: ignore[misc] # older versions of the host are untyped
    """Trainer of detectors: `YOLO("yolov5s_se.yaml").train(trainer=yolo_attn.Trainer, ...)`.

    Checkpoints are replaced in one step, so that a run that is killed while saving or stripping them keeps intact ones.
    A folder is locked against a second training, and a run is resumed in the folder of the given checkpoint.
    """

    def check_resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume in the folder of the given checkpoint, also if the run was copied or moved."""
        super().check_resume(*args, **kwargs)
        overrides = next(iter(args), kwargs.get("overrides")) or {}
        if self.args.resume and isinstance(self.args.resume, str) and not overrides.get("save_dir"):
            self.args.save_dir = str(runs.folder_to_resume(Path(self.args.resume), self.args.save_dir))

    def train(self) -> Any:
        """Train with the run's folder locked.

        Raises:
            FileError: Another process is training in it.
        """
        with contextlib.ExitStack() as stack:
            launched = stack.enter_context(runs.joined())
            if not launched and runs.first_rank():
                folder = Path(self.save_dir)
                stack.enter_context(runs.held(folder))
                if getattr(self, "ddp", True):  # the host launches a worker for each GPU, and trains in them
                    os.environ[runs.LAUNCHER] = runs.launcher(folder)
                    stack.callback(os.environ.pop, runs.LAUNCHER, None)
            return super().train()

    def resume_training(self, *args: Any, **kwargs: Any) -> None:
        """Remove the epochs beyond the checkpoint from the log: they are trained again."""
        super().resume_training(*args, **kwargs)
        if self.resume and runs.first_rank():
            runs.trim_log(Path(self.csv), self.start_epoch)

    def save_model(self) -> Any:
        """Write the checkpoints to temporary files, then move each to its place in one step."""
        last, best, folder = self.last, self.best, self.wdir
        Path(folder).mkdir(parents=True, exist_ok=True)
        with runs.published_to(Path(folder)) as drafts:
            self.last, self.best, self.wdir = (type(last)(drafts / p) for p in (Path(last).name, Path(best).name, ""))
            try:
                return super().save_model()
            finally:
                self.last, self.best, self.wdir = last, best, folder

    def final_eval(self) -> Any:
        """Strip the optimizer and validate as the host does, replacing each file in one step."""
        with runs.whole_checkpoints(torch):
            return super().final_eval()
