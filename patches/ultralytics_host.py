"""The `ultralytics` package: YOLOv5u, v8, 11, 26 and the other anchor-free families.

The patches:

- ``nn.tasks.parse_model`` looks up module names in its own globals and has no registry.
- ``nn.tasks.yaml_model_load`` knows only the working folder and the host's own YAMLs. Patched, it reads the kit's YAMLs,
  the classic dialect and ``register:``, wherever a model YAML enters: command line, trainer, DDP worker.
- ``nn.tasks.BaseModel.load`` copies weights by name, and an inserted row renames every layer after it. With attention,
  weights are matched by logical layer instead, as in ``utils.torch_utils.intersect_dicts``, which the newest YOLOv5
  checkouts load with. It takes two state dicts; ``BaseModel.state_dict`` records which model each belongs to.
- ``nn.tasks.BaseModel.fuse`` folds batch normalization in the host's own convolution class only, before it predicts,
  validates or exports; the kit's blocks fold theirs after it.
- ``utils.torch_utils.get_flops`` counts on an image of one stride and multiplies, which is wrong for the layers of a
  gate: they see one pixel at any size.
- ``engine.trainer.BaseTrainer.train`` runs in every process of a training. Patched, it adds a callback before each batch
  that applies a model's ``schedule`` (freezing, learning rate of attention). The host's default callbacks would not do:
  models and trainers copy them when they are made, which may be before the kit is imported, and may clear them.
- ``utils.dist.generate_ddp_file`` writes the script of each worker of a multi-GPU run. Before 8.4 the script imports
  nothing of the caller's, and a registered module is a KeyError in every worker.
- ``engine.model.Model.predict``, ``.val`` and ``.export`` would use a model whose attention has no weights.

Repairs, for the launchers only:

- ``engine.exporter.Exporter.export_onnx`` was written for torch's first exporter. Versions that do not select it get
  another one since torch 2.9, which needs a package that none of them requires.
- ``utils.checks.check_font`` downloads a font and waits seconds for each attempt without a network; a font of matplotlib
  replaces it then.
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
    """The versions in the kit's own requirement; pyproject.toml is the only place that states them."""
    import importlib.metadata  # 30 ms, a quarter of importing the kit
    import re

    wanted: list[str] = []
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if project.is_file():  # a checkout, whose installed metadata may be older
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
    """Let the workers' script import the kit first, with this process's ``sys.path``."""
    script = original(trainer)
    file = Path(script)
    head = f"import sys\nsys.path[:] = {sys.path!r}\n{kit.worker_lines()}"
    file.write_text(head + file.read_text(encoding="utf-8"), encoding="utf-8")
    return script


def _flops(kit: Kit, original: Callable[..., float], model: Any, imgsz: Any = 640, *rest: Any, **more: Any) -> float:
    """Count at the real image size; as the host does if that fails."""
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
    """Without a network, return an installed font instead of waiting for a download."""
    utils = sys.modules["ultralytics.utils"]
    if getattr(utils, "ONLINE", True) or (Path(utils.USER_CONFIG_DIR) / Path(font).name).exists():
        return original(font)
    from matplotlib import font_manager, get_data_path

    installed = next((f.fname for f in font_manager.fontManager.ttflist if str(font) in f.fname), None)
    return installed or str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


# What checkpoints of versions without a `torch_load` of their own hold besides layers: arguments and losses.
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
    """Declare the classes of checkpoints before the host reads one, where only declared classes may be used."""
    if kit.safe_load():
        kit.load_modules()
    own_load = hasattr(sys.modules.get("ultralytics.utils.patches"), "torch_load")  # passes weights_only=False
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
