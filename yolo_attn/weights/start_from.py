"""Build a detector from a YAML, give it pretrained weights by logical layer, and save it as a checkpoint.

Every entry point of a host accepts a checkpoint of the target architecture: trainer, command line, workers of a
multi-GPU run.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from ..errors import ConfigError, HostError
from ..files import write_bytes
from ..hook.host_errors import told_by_row
from ..hook.memory_need import refuse_too_large
from ..model_yaml import check, dialect, find, load
from ..model_yaml.start import with_start
from ..registry import plugins
from . import align, checkpoint, untrained

__all__ = ["build", "save"]

STARTS = ("identity", "paper", "yaml")

# The ultralytics host's model class for each task, and for heads with a model class of their own.
MODELS = {
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "classify": "ClassificationModel",
    "semantic": "SemanticSegmentationModel",
    "depth": "DepthModel",
}
HEADS = {
    "RTDETRDecoder": "RTDETRDetectionModel",
    "WorldDetect": "WorldModel",
    "YOLOEDetect": "YOLOEModel",
    "YOLOESegment": "YOLOESegModel",
    "YOLOESegment26": "YOLOESegModel",
}


def model_class(d: dict[str, Any], file: str) -> tuple[Any, str]:
    """Return the model class that the ultralytics host uses for a model dictionary, and its task.

    Args:
        d: A validated model dictionary.
        file: Name of the file, for messages.

    Raises:
        ConfigError: The host has no model class for the last row.
    """
    tasks = importlib.import_module("ultralytics.nn.tasks")
    head = str(d["head"][-1][2]) if d["head"] else "nothing"
    task = "detect" if head == "RTDETRDecoder" else tasks.guess_model_task(d)  # the host cannot guess this one
    cls = getattr(tasks, HEADS.get(head) or MODELS.get(task, ""), None)
    if cls is None:
        raise ConfigError(f"{file}: its last row, {head}, is not a head that the ultralytics host has a model for")
    return cls, task


def build(
    source: str | os.PathLike[str],
    cfg: str | os.PathLike[str],
    *,
    start: str = "identity",
    nc: int | None = None,
    minimum: float = align.THRESHOLD,
    force: bool = False,
    large: bool = False,
    training: bool = False,
    yolov5: str | os.PathLike[str] | None = None,
) -> tuple[Any, align.Report]:
    """Build a model from a YAML and give it pretrained weights.

    Args:
        source: The checkpoint, state dict or safetensors file.
        cfg: The model's name or path.
        start: How new attention begins: ``identity``, ``paper``, or ``yaml`` for the options in the rows.
        nc: Number of classes. Default: that of the YAML.
        minimum: Least fraction of the detector's tensors that must receive weights, 0 to 1.
        force: Continue even if fewer do, or if the model needs more memory than there is.
        large: Continue even if the model needs more memory than there is.
        training: Whether the memory must be enough for training.
        yolov5: Folder of a classic YOLOv5 checkout to build for, instead of ultralytics.

    Returns:
        The detector, and the report of the transfer, which also says how it relates to the source until it is trained.

    Raises:
        CheckpointError: The source cannot be read, or is another architecture.
        ConfigError: The YAML is not a valid model.
        HostError: The host cannot be imported.
    """
    ckpt = checkpoint.read(source)
    path = find.require(cfg)
    d = load.read(path)
    plugins.load_register(d, path.parent, str(cfg))
    d["scale"] = find.split_scale(Path(cfg).stem)[1] or d.get("scale") or ""
    check.validate(d, str(cfg))
    d = load.settled(d, str(cfg))
    if start != "yaml":
        d, _ = with_start(d, start)  # modules without the option are in the report's sentence
    d["yaml_file"] = str(cfg)
    with told_by_row(str(cfg)):
        fits = functools.partial(refuse_too_large, file=str(cfg), training=training, force=force or large)
        model = _classic(d, nc, str(yolov5), fits) if yolov5 else _ultralytics(d, nc, str(cfg), fits)
    report = align.transfer(ckpt, model, minimum=minimum, force=force)
    report.until_trained = untrained.sentence(ckpt, model, report)
    return model, report


def _ultralytics(d: dict[str, Any], nc: int | None, cfg: str, fits: Callable[..., None]) -> Any:
    os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing here uses the network
    try:
        tasks = importlib.import_module("ultralytics.nn.tasks")
    except ImportError as exc:
        raise HostError(f"the ultralytics package cannot be imported: {exc}. 'pip install ultralytics'") from exc
    d = dialect.to_ultralytics(d, cfg)
    cls, task = model_class(d, cfg)
    fits(d, parser=tasks)
    model = cls(d, nc=nc, verbose=False)
    model.task = task
    return model


def _classic(d: dict[str, Any], nc: int | None, folder: str, fits: Callable[..., None]) -> Any:
    if not (Path(folder) / "models" / "yolo.py").is_file():
        raise HostError(f"--yolov5 {folder}: not a YOLOv5 checkout (it has no models/yolo.py)")
    sys.path.insert(0, str(Path(folder).resolve()))
    try:
        yolo = importlib.import_module("models.yolo")
    except ImportError as exc:
        raise HostError(f"--yolov5 {folder}: cannot be imported: {exc}") from exc
    d = dialect.to_classic(d, str(d.get("scale") or ""), str(d["yaml_file"]))
    fits(d, parser=yolo)
    return yolo.Model(d, nc=nc)


def save(
    model: Any, output: Path, *, classic: bool = False, arguments: Mapping[str, Any] | None = None
) -> None:
    """Save a detector as a checkpoint of its host, in one atomic step.

    Args:
        model: The detector.
        output: The file.
        classic: Whether its host is classic YOLOv5.
        arguments: Further arguments that it was trained with.

    Raises:
        FileError: The file cannot be written.
    """
    import torch

    content: dict[str, Any] = {
        "epoch": -1,
        "best_fitness": None,
        "model": model,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "date": datetime.datetime.now().isoformat(),
    }
    if classic:
        content["opt"] = dict(arguments) if arguments else None
    else:
        import ultralytics

        content["train_args"] = {**(arguments or {}), "task": model.task}
        content["version"] = ultralytics.__version__
    buffer = io.BytesIO()  # torch reports a full disk as an error of its own archive
    torch.save(content, buffer)
    write_bytes(output, buffer.getbuffer())
