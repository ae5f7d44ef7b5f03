"""`--log-gates`: the gates of a detector in training, into TensorBoard at the end of each epoch, on both hosts.

A fixed handful of validation images goes through the averaged detector, the one that is saved, after the host has
validated it. Nothing of the training changes: no random number is drawn and no gradient is kept.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..errors import CheckpointError, DataError, UsageError, YoloAttnError
from ..evaluation import figures
from ..inside.recording import Gates, recording
from ..log import announce
from ..runtime.image import blob, letterbox, round_up
from . import runs

__all__ = ["IMAGES", "VARIABLE", "GateLog", "before_batch", "before_loop", "require", "watched"]

VARIABLE = "YOLO_ATTN_LOG_GATES"  # for the processes of a run: JSON of data, imgsz and folder, or of nothing
IMAGES = 16
BATCH = 4


def require() -> None:
    """Check that gates can be logged.

    Raises:
        YoloAttnError: TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise YoloAttnError("--log-gates writes for TensorBoard, which is not installed: 'pip install tensorboard'")


def watched(data: str = "", imgsz: int = 0, folder: Path | str = "") -> dict[str, str]:
    """Return the environment that asks the processes of a run to log; what is empty the host's trainer tells."""
    return {VARIABLE: json.dumps({"data": data, "imgsz": imgsz, "folder": str(folder)})}


class GateLog:
    """Writes the gates of a detector.

    Args:
        network: A detector of the training, to see what gates there are.
        data: The data set's YAML.
        imgsz: Side of the input in pixels.
        folder: Of the run; TensorBoard's files go there.
        start_epoch: First epoch that is trained; a resumed run hides what was written beyond.

    Raises:
        CheckpointError: It has no attention with a gate.
        DataError: No validation image can be read.
    """

    def __init__(self, network: Any, data: str, imgsz: int, folder: Path, start_epoch: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        gates = Gates(network, keep=0)
        if not gates:
            why = "; ".join(f"{k}: {v}" for k, v in gates.without.items()) or "it has no attention of the kit"
            raise CheckpointError(f"--log-gates: no layer of the model has a gate: {why}")
        split = figures.split_of(data, name="val").some(IMAGES)
        size = round_up((imgsz, imgsz), int(max(network.stride)), tell=lambda line: None)
        self.images = [letterbox(image, size)[0] for image, _ in split.images()]
        self.epoch = start_epoch - 1
        self.trained = self.epoch
        # None where nothing is resumed, as it would hide what else a folder that is reused holds
        self.writer = SummaryWriter(str(folder), purge_step=start_epoch or None)
        announce("--log-gates: %d gates on %d images of 'val:' each epoch. See them with: tensorboard --logdir %s",
                 len(gates), len(self.images), folder)  # fmt: skip

    def write(self, network: Any, epoch: int) -> None:
        """Write the gates of a network after an epoch, once for each epoch."""
        import torch

        if epoch <= self.epoch:  # classic YOLOv5 calls once more after the last one, with the best detector
            return
        self.epoch = epoch
        gates = Gates(network, keep=0)
        first = next(network.parameters())
        modes = [(m, m.training) for m in network.modules()]
        network.eval()
        try:
            for k in range(0, len(self.images), BATCH):
                x = torch.from_numpy(blob(self.images[k : k + BATCH])).to(first.device, first.dtype)
                with torch.no_grad(), recording(gates):
                    network(x)
        finally:
            for m, mode in modes:
                m.training = mode
        for name, gate in gates.items():
            if not gate.images:
                continue
            numbers = {
                "mean": gate.number, "spread": float(gate.spread.mean()), "still": gate.still(),
                "dead": float(gate.dead.double().mean()), "saturated": float(gate.saturated.double().mean()),
            }  # fmt: skip
            for key, value in numbers.items():
                self.writer.add_scalar(f"gates_{key}/{name}", value, epoch)
            self.writer.add_histogram(f"gates/{name}", gate.mean.flatten().numpy(), epoch)
        self.writer.flush()


def _asked() -> dict[str, Any] | None:
    text = os.environ.get(VARIABLE)
    return json.loads(text) if text and runs.first_rank() else None


def before_batch(trainer: Any) -> None:
    """Called before each batch of an ultralytics trainer: at the first one, ask to be called after each epoch."""
    if "_yolo_attn_gates" in vars(trainer):
        if trainer._yolo_attn_gates is not None:
            trainer._yolo_attn_gates.trained = trainer.epoch
        return
    trainer._yolo_attn_gates = None
    if _asked() is None or trainer.ema is None:
        return
    args = trainer.args
    imgsz = args.imgsz if isinstance(args.imgsz, int) else max(args.imgsz)
    log = GateLog(trainer.ema.ema, str(args.data), imgsz, Path(trainer.save_dir), trainer.start_epoch)
    trainer._yolo_attn_gates = log
    log.trained = trainer.epoch

    def on_fit_epoch_end(t: Any) -> None:
        if t.epoch == log.trained:  # the host calls once more at the end, for an epoch that was not trained
            log.write(t.ema.ema, t.epoch)

    trainer.add_callback("on_fit_epoch_end", on_fit_epoch_end)


def before_loop(model: Any) -> None:
    """Called before the training loop of classic YOLOv5: register with the host's callbacks.

    Raises:
        UsageError: The host's training function has no callbacks that can be found.
    """
    asked = _asked()
    if asked is None:
        return
    held = _held()
    if held.callbacks is None or held.ema is None:
        raise UsageError("--log-gates: this train.py has no callbacks, through which gates are logged. Train without the option")
    log = GateLog(held.ema.ema, asked["data"], asked["imgsz"], Path(asked["folder"]), held.start_epoch)

    def on_fit_epoch_end(values: Any, epoch: int, *rest: Any) -> None:
        log.write(held.ema.ema, epoch)

    held.callbacks.register_action("on_fit_epoch_end", name="log_gates", callback=on_fit_epoch_end)


def _held() -> SimpleNamespace:
    """What the host's training function holds, by what it can do and not by its name."""
    out = SimpleNamespace(callbacks=None, ema=None, start_epoch=0)
    frame: Any = sys._getframe(2)
    while frame is not None and (out.callbacks is None or out.ema is None):
        for name, value in frame.f_locals.items():
            if hasattr(value, "register_action") and hasattr(value, "run"):
                out.callbacks = value
            elif hasattr(value, "ema") and hasattr(value, "updates"):
                out.ema = value
            elif name == "start_epoch" and isinstance(value, int):
                out.start_epoch = value
        frame = frame.f_back
    return out


def of_classic(argv: list[str], folder: Path) -> dict[str, str]:
    """Return the environment for a run of classic YOLOv5.

    Args:
        argv: The arguments of its `train.py`.
        folder: Of the run.

    Raises:
        DataError: A resumed run does not say what it was trained on.
    """
    from ..model_yaml.reader import read_mapping

    given = dict(zip(argv, argv[1:]))
    data, size = given.get("--data"), given.get("--imgsz")
    if data is None:
        opt = read_mapping(folder / "opt.yaml", DataError, "It should contain the options of a run.")
        data, size = str(opt.get("data")), str(opt.get("imgsz") or "")
    return watched(data, int(size) if size and size.isdigit() else 640, folder)
