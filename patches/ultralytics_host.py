"""The `ultralytics` package: YOLOv5u, v8, 11, 26 and the other anchor-free families.

Why each patch is there:

- ``nn.tasks.parse_model`` looks module names up in its own globals and has no registry.
- ``nn.tasks.yaml_model_load`` knows only the working folder and the host's own YAMLs; the kit's YAMLs, the
  classic dialect and ``register:`` are read here, wherever a model YAML enters: command line, trainer, DDP worker.
- ``nn.tasks.BaseModel.load`` copies weights by name, and an inserted row renames every layer behind it; where
  attention is involved they go by logical layer. So does ``utils.torch_utils.intersect_dicts``, which the newest YOLOv5
  checkouts load with: it is given two state dicts, and ``BaseModel.state_dict`` notes whose they are.
- ``nn.tasks.BaseModel.fuse`` folds batch normalization in the host's own convolution class only, before it predicts,
  validates or exports; the kit's blocks fold theirs after it.
- ``utils.torch_utils.get_flops`` counts on one stride's image and multiplies: wrong for a gate's layers, which see one
  pixel at any size.
- ``engine.trainer.BaseTrainer.train`` begins a training in every process of a run; a callback of the trainer's own,
  before each batch, follows a model's ``schedule`` (freezing, learning rate of attention). It is given to the trainer
  here and not to the host's default callbacks, of which models and trainers take a copy when they are made: one that
  was made before the kit was imported, or whose callbacks were cleared, would not have it.
- ``utils.dist.generate_ddp_file`` writes the script that each worker of a multi-GPU run starts with; before 8.4
  that script imports nothing of the caller's, and a registered module is a KeyError in every worker.
- ``engine.model.Model.predict``, ``.val`` and ``.export`` would take a model whose attention got no weights for a detector.

Repairs, for the launchers only:

- ``engine.exporter.Exporter.export_onnx``, in versions that leave the choice of torch's exporter to torch, was written for
  the first one; since torch 2.9 they would get another, which asks for a package that none of them brings.
- ``utils.checks.check_font`` asks the network for a font, seconds a try, also where there is none; offline, the
  font that matplotlib brings serves.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from .interface import Host, Kit, Patch
from .safe_classes import declare
from .yolov5_dated import first_exporter
from .yolov5_shared import fuse, intersect_dicts, state_dict

__all__ = ["HOST"]

PROJECT = __name__.partition(".")[0].replace("_", "-")


def _recognise(module: ModuleType) -> bool:
    return module.__name__.partition(".")[0] == "ultralytics"


def _version(module: ModuleType) -> str:
    return str(getattr(sys.modules.get("ultralytics"), "__version__", "of unknown version"))


def _supported() -> str:
    """The versions that the kit's own requirement names: pyproject.toml is the one place where they stand."""
    import importlib.metadata  # 30 ms, a quarter of importing the kit
    import re

    wanted: list[str] = []
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if project.is_file():  # a checkout, whose installed description may be of an earlier state
        wanted = re.findall(r'"(ultralytics[^"]*)"', project.read_text(encoding="utf-8"))
    else:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            wanted = importlib.metadata.requires(PROJECT) or []
    return next((w.partition(";")[0].strip() for w in wanted if w.startswith("ultralytics>")), "ultralytics")


def _load_yaml(kit: Kit, original: Callable[..., dict[str, Any]], path: Any, *rest: Any, **more: Any) -> dict[str, Any]:
    found = kit.locate(path)
    return original(path, *rest, **more) if found is None else kit.read_model(path, found)


def _load_weights(kit: Kit, original: Callable[..., Any], self: Any, weights: Any, *rest: Any, **more: Any) -> Any:
    return kit.load_weights(original, self, weights, *rest, **more)


def _worker_script(kit: Kit, original: Callable[..., str], trainer: Any) -> str:
    """Make the workers' script import the kit first, with the paths of this process."""
    script = original(trainer)
    file = Path(script)
    head = f"import sys\nsys.path[:] = {sys.path!r}\n{kit.worker_lines()}"
    file.write_text(head + file.read_text(encoding="utf-8"), encoding="utf-8")
    return script


def _flops(kit: Kit, original: Callable[..., float], model: Any, imgsz: Any = 640, *rest: Any, **more: Any) -> float:
    """Count at the real size; as the host does where that fails."""
    twin = kit.at_full_size(model, imgsz)
    return (twin is not None and original(twin, imgsz, *rest, **more)) or original(model, imgsz, *rest, **more)


def _train(kit: Kit, original: Callable[..., Any], self: Any, *rest: Any, **more: Any) -> Any:
    before = self.callbacks["on_train_batch_start"]
    if kit.before_batch not in before:
        before.append(kit.before_batch)
    return original(self, *rest, **more)


def _detecting(kit: Kit, original: Callable[..., Any], self: Any, *given: Any, **named: Any) -> Any:
    kit.check_filled(self.model)
    return original(self, *given, **named)


def _export_onnx(kit: Kit, original: Callable[..., Any], self: Any, *rest: Any, **more: Any) -> Any:
    with first_exporter():
        return original(self, *rest, **more)


def _font(kit: Kit, original: Callable[..., Any], font: str = "Arial.ttf") -> Any:
    """Without a network, take a font that is here instead of waiting for one that is not."""
    utils = sys.modules["ultralytics.utils"]
    if getattr(utils, "ONLINE", True) or (Path(utils.USER_CONFIG_DIR) / Path(font).name).exists():
        return original(font)
    from matplotlib import font_manager, get_data_path

    installed = next((f.fname for f in font_manager.fontManager.ttflist if str(font) in f.fname), None)
    return installed or str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


# What the checkpoints of versions without a `torch_load` of their own hold beside layers: arguments and losses.
BESIDE = (
    "ultralytics.utils.IterableSimpleNamespace",
    *(
        f"ultralytics.utils.loss.v8{task}Loss"
        for task in ("Detection", "Segmentation", "Pose", "OBB", "Classification")
    ),
    *(f"ultralytics.utils.loss.{n}" for n in ("BboxLoss", "RotatedBboxLoss", "KeypointLoss")),
    *(f"ultralytics.utils.tal.{n}" for n in ("TaskAlignedAssigner", "RotatedTaskAlignedAssigner")),
)


def _prepare(kit: Kit, module: ModuleType) -> Callable[[], None] | None:
    """Where checkpoints are read by declared classes only, have them declared before the host reads one."""
    if kit.safe_load():
        kit.load_modules()
    own_load = hasattr(sys.modules.get("ultralytics.utils.patches"), "torch_load")  # asks torch for all classes
    return None if own_load else declare(kit, module, BESIDE)


_TASKS, _TOOLS, _MODEL = "ultralytics.nn.tasks", "ultralytics.utils.torch_utils", "ultralytics.engine.model"
_LAYER, _FILLED = "pretrained weights by logical layer", "attention without weights is an error"

HOST = Host(
    name="ultralytics",
    patches=(
        Patch(_TASKS, "parse_model", "registered names in YAML rows", takes="d", by_name=True),
        Patch(_TASKS, "yaml_model_load", "the kit's YAMLs, the classic dialect, `register:`", _load_yaml, "path", True),
        Patch(_TASKS, "BaseModel.load", _LAYER, _load_weights, "self weights"),
        Patch(_TASKS, "BaseModel.state_dict", "which model a state dict belongs to", state_dict, "self"),
        Patch(_TASKS, "BaseModel.fuse", "batch normalization folded in the kit's blocks too", fuse, "self"),
        Patch(_TOOLS, "intersect_dicts", f"the newest YOLOv5 checkouts load through it: {_LAYER}", intersect_dicts,
              "da db", True),
        Patch(_TOOLS, "get_flops", "`model.info()`: a gate's operations at the real size", _flops, "model imgsz"),
        Patch("ultralytics.engine.trainer", "BaseTrainer.train", "freezing and learning rate: `schedule`", _train, "self"),
        Patch("ultralytics.utils.dist", "generate_ddp_file", "the kit in every worker of a multi-GPU run", _worker_script,
              "trainer"),
        *(Patch(_MODEL, f"Model.{verb}", _FILLED, _detecting, "self") for verb in ("predict", "val", "export")),
    ),
    recognise=_recognise,
    version=_version,
    supported=_supported,
    prepare=_prepare,
    repairs=(
        Patch("ultralytics.engine.exporter", "Exporter.export_onnx", "older ones: torch's first exporter", _export_onnx,
              "self"),
        Patch("ultralytics.utils.checks", "check_font", "no wait for a font without a network", _font, "font"),
    ),
)  # fmt: skip
