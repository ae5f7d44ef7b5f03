"""A detector to start training from: built from a YAML, filled with pretrained weights by logical layer, saved.

A checkpoint that already holds the target architecture is what every entry of a host takes: trainer, command line,
worker of a multi-GPU run.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import io
import os
import sys
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

# The ultralytics host's model class for each task, and for the heads that the host trains with one of their own.
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
    """Return the class that the ultralytics host itself takes for a model dictionary, and its task.

    Raises:
        ConfigError: The host knows neither task nor class for the last row.
    """
    tasks = importlib.import_module("ultralytics.nn.tasks")
    head = str(d["head"][-1][2]) if d["head"] else "nothing"
    task = "detect" if head == "RTDETRDecoder" else tasks.guess_model_task(d)  # the host does not guess that one
    cls = getattr(tasks, HEADS.get(head) or MODELS.get(task, ""), None)
    if cls is None:
        raise ConfigError(f"{file}: its last row, {head}, is no head that the ultralytics host builds a model for")
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
    """Build a model YAML and give it pretrained weights.

    Args:
        source: The checkpoint, state dict or safetensors file.
        cfg: The model, by name or path.
        start: How new attention begins: ``identity``, ``paper``, or ``yaml`` for what the rows say.
        nc: Number of classes; the YAML's when absent.
        minimum: Least share of the detector's tensors that must match.
        force: Go on below it, and with a model that needs more memory than there is.
        large: Only the latter.
        training: Whether the memory is to suffice for training.
        yolov5: Build for the classic YOLOv5 checkout in this folder, instead of ultralytics.

    Returns:
        The detector and what went where; the report says as well how it stands to the source until it is trained.

    Raises:
        CheckpointError: The source cannot be read, or is another architecture.
        ConfigError: The YAML is no valid model.
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
        d, _ = with_start(d, start)  # what has none is in the sentence
    d["yaml_file"] = str(cfg)
    with told_by_row(str(cfg)):
        fits = functools.partial(refuse_too_large, file=str(cfg), training=training, force=force or large)
        model = _classic(d, nc, str(yolov5), fits) if yolov5 else _ultralytics(d, nc, str(cfg), fits)
    report = align.transfer(ckpt, model, minimum=minimum, force=force)
    report.until_trained = untrained.sentence(ckpt, model, report)
    return model, report


def _ultralytics(d: dict[str, Any], nc: int | None, cfg: str, fits: Callable[..., None]) -> Any:
    os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing here asks the network
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
        raise HostError(f"--yolov5 {folder}: no YOLOv5 checkout (it has no models/yolo.py)")
    sys.path.insert(0, str(Path(folder).resolve()))
    try:
        yolo = importlib.import_module("models.yolo")
    except ImportError as exc:
        raise HostError(f"--yolov5 {folder}: cannot be imported: {exc}") from exc
    d = dialect.to_classic(d, str(d.get("scale") or ""), str(d["yaml_file"]))
    fits(d, parser=yolo)
    return yolo.Model(d, nc=nc)


def save(model: Any, output: Path, *, classic: bool = False) -> None:
    """Write the detector as a checkpoint of its host, in one step.

    Raises:
        FileError: It cannot be written.
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
        content["opt"] = None
    else:
        import ultralytics

        content["train_args"] = {"task": model.task}
        content["version"] = ultralytics.__version__
    buffer = io.BytesIO()  # torch reports a full disk as an error of its own archive
    torch.save(content, buffer)
    write_bytes(output, buffer.getbuffer())
