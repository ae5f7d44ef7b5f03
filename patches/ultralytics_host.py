"""The `ultralytics` package: YOLOv5u, v8, 11, 26 and the other anchor-free families.

Why each touch is there:

- ``nn.tasks.parse_model`` looks module names up in its own globals and has no registry.
- ``nn.tasks.yaml_model_load`` knows only the working folder and the host's own YAMLs; the kit's YAMLs, the
  classic dialect and ``register:`` are read here, wherever a model YAML enters: command line, trainer, DDP worker.
- ``yolo.utils.checks.check_file`` does that work in the first 8.0 releases, whose parser knows no ``scales``.
- ``nn.tasks.BaseModel.load`` copies weights by name, and an inserted row renames every layer behind it; where
  attention is involved they go by logical layer.
- ``utils.dist.generate_ddp_file`` writes the script that each worker of a multi-GPU run starts with; before 8.4
  that script imports nothing of the caller's, and a registered module is a KeyError in every worker.
- ``nn.tasks.BaseModel.fuse`` folds batch normalization in the host's own convolution class only, before it predicts,
  validates or exports; the kit's blocks fold theirs after it.
- ``utils.torch_utils.get_flops`` counts on one stride's image and multiplies: wrong for a gate's layers, which see one
  pixel at any size.
- ``engine.trainer.BaseTrainer.run_callbacks`` announces each batch in every process of a run; a model's ``schedule``
  (freezing, learning rate of attention) is followed there, whatever trainer class is at work.
- ``engine.exporter.Exporter.export_onnx``, in versions that leave the choice of torch's exporter to torch, was written for
  the first one; since torch 2.9 they would get another, which asks for a package that none of them brings.
- ``engine.model.Model.predict``, ``.val`` and ``.export`` would take a model whose attention got no weights for a detector.
- ``utils.checks.check_font`` asks the network for a font, seconds a try, also where there is none; offline, the
  font that matplotlib brings serves.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from . import Host, Touch
from .safe_classes import declare, load_modules
from .yolov5_dated import first_exporter
from .yolov5_shared import intersect_dicts

__all__ = ["HOST"]

KIT = __name__.rpartition(".patches")[0]  # the package that this folder is a part of, vendored or not


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
            wanted = importlib.metadata.requires(KIT.replace("_", "-")) or []
    named = next((w.partition(";")[0].strip() for w in wanted if w.startswith("ultralytics>")), "ultralytics")
    return f"{named}; from 8.0.0 on models can be built"


def _load_yaml(original: Callable[..., dict[str, Any]], path: Any) -> dict[str, Any]:
    config = importlib.import_module(f"{KIT}.config")
    found = config.locate(path)
    return original(path) if found is None else config.load_ultralytics(path, found)


def _old_check_file(original: Callable[..., Any], file: Any, *rest: Any, **more: Any) -> Any:
    """In the first 8.0 releases the host opens the file that this returns, and knows no `scales`."""
    tasks = sys.modules.get("ultralytics.nn.tasks")
    if tasks is None or hasattr(tasks, "yaml_model_load") or Path(str(file)).suffix not in (".yaml", ".yml"):
        return original(file, *rest, **more)
    config, dialect = (importlib.import_module(f"{KIT}.{n}") for n in ("config", "dialect"))
    found = config.locate(file)
    if found is None or b"backbone" not in found.read_bytes():
        return original(file, *rest, **more)
    return str(dialect.classic_file(str(file), found, anchors=False))


def _load_weights(original: Callable[..., Any], self: Any, weights: Any, *rest: Any, **more: Any) -> Any:
    return importlib.import_module(f"{KIT}.pretrained").load(original, self, weights, *rest, **more)


def _worker_script(original: Callable[..., str], trainer: Any) -> str:
    """Make the workers' script import the kit first, with the paths of this process."""
    script = original(trainer)
    file = Path(script)
    head = f"import sys\nsys.path[:] = {sys.path!r}\nimport {KIT}\n"
    file.write_text(head + file.read_text(encoding="utf-8"), encoding="utf-8")
    return script


def _fuse(original: Callable[..., Any], self: Any, *rest: Any, **more: Any) -> Any:
    result = original(self, *rest, **more)
    importlib.import_module(f"{KIT}.modules._conv").fuse(self)
    return result


def _flops(original: Callable[..., float], model: Any, imgsz: Any = 640, *rest: Any, **more: Any) -> float:
    """Count at the real size; as the host does where that fails."""
    twin = importlib.import_module(f"{KIT}.flops").at_full_size(model, imgsz)
    return (twin is not None and original(twin, imgsz, *rest, **more)) or original(model, imgsz, *rest, **more)


def _run_callbacks(original: Callable[..., Any], self: Any, event: str, *rest: Any, **more: Any) -> Any:
    if event == "on_train_batch_start":
        importlib.import_module(f"{KIT}.schedule").before_batch(self)
    return original(self, event, *rest, **more)


def _export_onnx(original: Callable[..., Any], self: Any, *rest: Any, **more: Any) -> Any:
    with first_exporter():
        return original(self, *rest, **more)


def _detecting(original: Callable[..., Any], self: Any, *given: Any, **named: Any) -> Any:
    importlib.import_module(f"{KIT}.pretrained").check_filled(self.model)
    return original(self, *given, **named)


def _font(original: Callable[..., Any], font: str = "Arial.ttf") -> Any:
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


def _prepare(module: ModuleType) -> Callable[[], None] | None:
    """Where checkpoints are read by declared classes only, have them declared before the host reads one."""
    if importlib.import_module(f"{KIT}.plugins").safe_load():
        load_modules()
    own_load = hasattr(sys.modules.get("ultralytics.utils.patches"), "torch_load")  # asks torch for all classes
    if module.__name__ != "ultralytics.nn.tasks" or own_load:
        return None
    return declare(module, BESIDE)


HOST = Host(
    name="ultralytics",
    touches=(
        Touch("ultralytics.nn.tasks", "parse_model", "registered names in YAML rows"),
        Touch(
            "ultralytics.nn.tasks", "yaml_model_load", "the kit's YAMLs, the classic dialect, `register:`", _load_yaml
        ),
        Touch(
            "ultralytics.yolo.utils.checks", "check_file", "in the first 8.0 releases: the kit's YAMLs", _old_check_file
        ),
        Touch(
            "ultralytics.utils.torch_utils",
            "intersect_dicts",
            "the newest YOLOv5 checkouts load through it: pretrained weights by logical layer",
            intersect_dicts,
        ),
        Touch("ultralytics.nn.tasks", "BaseModel.load", "pretrained weights by logical layer", _load_weights),
        Touch(
            "ultralytics.utils.dist", "generate_ddp_file", "the kit in every worker of a multi-GPU run", _worker_script
        ),
        Touch("ultralytics.nn.tasks", "BaseModel.fuse", "batch normalization folded in the kit's blocks too", _fuse),
        Touch(
            "ultralytics.utils.torch_utils", "get_flops", "`model.info()`: a gate's operations at the real size", _flops
        ),
        Touch(
            "ultralytics.engine.trainer",
            "BaseTrainer.run_callbacks",
            "freezing and learning rate: `schedule`",
            _run_callbacks,
        ),
        Touch(
            "ultralytics.engine.exporter", "Exporter.export_onnx", "older ones: torch's first exporter", _export_onnx
        ),
        *(
            Touch("ultralytics.engine.model", f"Model.{verb}", "attention without weights is an error", _detecting)
            for verb in ("predict", "val", "export")
        ),
        Touch("ultralytics.utils.checks", "check_font", "no wait for a font without a network", _font),
    ),
    recognise=_recognise,
    version=_version,
    prepare=_prepare,
    supported=_supported,
)
