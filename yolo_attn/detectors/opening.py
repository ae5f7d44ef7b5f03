"""Open a detector: a checkpoint of ultralytics or YOLOv5, a bundle, a model YAML, or a YAML with weights.

For any other file, the error says what it is instead.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, YoloAttnError, first_line, shown
from ..hook.host_errors import told_by_row
from ..log import announce
from ..weights import pickles
from .host_paths import keep_apostrophes
from .source import Source, quiet_host, widen_classes

__all__ = ["load", "open_source"]

# A random network that keeps its variance from layer to layer amplifies rounding errors: at 640 pixels from the seventh
# digit to the fourth. Assuming a slightly larger variance prevents that.
CALM = 1.15


def open_source(path: str | os.PathLike[str], cfg: str | os.PathLike[str] | None = None) -> Source:
    """Open a checkpoint, a bundle, or a model YAML.

    Args:
        path: A ``.pt`` or ``.bundle`` file, or a model YAML (random weights).
        cfg: A model YAML to load the checkpoint's weights into; every tensor must match.

    Raises:
        CheckpointError: The file is missing, damaged or not a detector's checkpoint.
        ConfigError: The YAML is wrong.
    """
    file = Path(os.path.expanduser(str(path)))
    if cfg is not None:
        return _yaml_with_weights(cfg, file)
    if _is_yaml(file):
        return _yaml(path)
    _check_file(file)
    if file.suffix.lower() == ".bundle":
        from .bundle import load

        return _of_ultralytics(file, load(file))
    return _checkpoint(file)


def load(path: str | os.PathLike[str]) -> Any:
    """Open a detector of any kind that the kit can open.

    Args:
        path: A checkpoint (``.pt``) of ultralytics or classic YOLOv5, a bundle, or a model's name or YAML. A bare name
            (``yolov8n``) means the checkpoint of that name if it exists, otherwise the YAML, with random weights.

    Returns:
        An ``ultralytics.YOLO``, ready to predict, validate, export or train; for a checkpoint of classic YOLOv5,
        whose host must be importable, the network in eval mode.

    Raises:
        CheckpointError: The file is missing, damaged, changed or not a detector.
        ConfigError: The YAML is wrong, or there is none of that name.
    """
    file = Path(os.path.expanduser(str(path)))
    if not file.suffix and not file.exists() and file.with_suffix(".pt").is_file():
        file = file.with_suffix(".pt")
    elif _is_yaml(file):
        if not file.suffix:
            announce("%s: random weights, since there is no %s.pt here", path, path)
        return _build(path)
    source = open_source(file)
    return source.model if source.handle is None else source.handle


def _check_file(file: Path) -> None:
    if file.is_dir():
        inside = sorted(file.rglob("best.pt")) or sorted(file.rglob("*.pt"))
        hint = f" It contains {inside[0]}." if inside else ""
        raise CheckpointError(f"{file}: is a folder, not a checkpoint.{hint}")
    if not file.is_file():
        near = sorted(file.parent.glob("*.pt")) if file.parent.is_dir() else []
        hint = f" The folder has {', '.join(p.name for p in near[:5])}." if near else ""
        raise CheckpointError(f"checkpoint not found: {file} (looked in {Path.cwd()}).{hint} Nothing is downloaded.")
    if file.stat().st_size == 0:
        raise CheckpointError(f"{file}: is empty. Was it copied while it was being written?")


def _checkpoint(file: Path) -> Source:
    import torch

    if file.suffix.lower() == ".onnx":
        raise CheckpointError(f"{file}: is an ONNX file already. Give the checkpoint (.pt) that it was exported from.")
    if file.suffix.lower() != ".pt":
        raise CheckpointError(f"{file}: is not a checkpoint: its name should end in .pt.")
    with file.open("rb") as stream:
        head = stream.read(4)
    if head[:2] != b"PK" and head[:1] not in (b"\x80", b"\x8a"):
        raise CheckpointError(f"{file}: is not a PyTorch checkpoint: its first bytes are {head!r}.")
    if head[:2] == b"PK" and not zipfile.is_zipfile(file):
        raise CheckpointError(
            f"{file}: is truncated: the index at its end is missing ({file.stat().st_size:,} bytes). Copy it again."
        )
    pickles.refuse_script(file)
    from .classic import is_classic, open_classic

    if is_classic(file):
        return open_classic(file)
    handle = host_handle(file)
    if not isinstance(handle.model, torch.nn.Module):
        raise CheckpointError(f"{file}: contains no network.")
    return _of_ultralytics(file, handle)


def host_handle(file: Path) -> Any:
    """Return the ultralytics host's ``YOLO`` of a checkpoint.

    Raises:
        CheckpointError: TorchScript, or what the host cannot or, under ULTRALYTICS_SAFE_LOAD, will not load.
    """
    pickles.refuse_script(file)
    from ultralytics import YOLO

    keep_apostrophes()
    try:
        with quiet_host():
            return YOLO(str(file))
    except YoloAttnError:
        raise
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except Exception as exc:  # unpickling may raise anything
        raise _explain(file, exc) from exc


def _explain(file: Path, exc: Exception) -> CheckpointError:
    """Return an error that says what a file is that the ultralytics host cannot load."""
    if isinstance(exc.__cause__ or exc, ModuleNotFoundError):
        name = getattr(exc.__cause__ or exc, "name", None) or "?"
        return CheckpointError(
            f"{file}: was saved with classes of the module '{name}', which is not installed. If that is your own "
            f"attention, give its file with --plugin FILE."
        )
    kind = None
    with contextlib.suppress(CheckpointError):
        loaded = pickles.load(file)
        if isinstance(loaded, dict) and loaded.get("model") is not None:
            pass  # a detector that the host refuses: its own message is used below
        elif _is_state(loaded):
            kind = "is a state dict, weights without a network. Give the YAML as well: --cfg MODEL.yaml"
        elif isinstance(loaded, dict):
            keys = ", ".join(shown(k, 40) for k in list(loaded)[:5]) or "nothing"
            kind = f"is not a YOLO checkpoint: it is a dictionary with {keys}, without 'model'"
        else:
            kind = f"is not a YOLO checkpoint: it is a {type(loaded).__name__}"
    if kind:
        return CheckpointError(f"{file}: {kind}.")
    return CheckpointError(f"{file}: cannot be loaded: {type(exc).__name__}: {first_line(exc)[:300]}")


def _is_state(content: Any) -> bool:
    import torch

    return isinstance(content, dict) and bool(content) and all(isinstance(v, torch.Tensor) for v in content.values())


def _of_ultralytics(file: Path, handle: Any) -> Source:
    model = handle.model
    model = model.float().eval()
    args = getattr(model, "args", None)
    size = (args if isinstance(args, dict) else vars(args) if args is not None else {}).get("imgsz") or 640
    pair = [size, size] if isinstance(size, int) else list(size)
    return Source(file, "ultralytics", model, str(handle.task), (int(pair[0]), int(pair[-1])), handle)


def _is_yaml(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml") or (file.suffix == "" and not file.exists())


def _build(path: str | os.PathLike[str]) -> Any:
    """Build a model YAML, with random weights, as the host's wrapper."""
    from ultralytics import YOLO

    from ..model_yaml import find

    find.require(path)
    try:
        with quiet_host(), told_by_row(str(path)):
            return YOLO(str(path) if str(path).endswith((".yaml", ".yml")) else f"{path}.yaml")
    except NotImplementedError as exc:  # the host cannot tell the task from the last row
        raise ConfigError(f"{path}: is not a model that the ultralytics YOLO class can build: {exc}") from exc
    except OSError as exc:  # a TorchVision row downloads weights
        raise ConfigError(f"{path}: cannot be built: {type(exc).__name__}: {first_line(exc)}") from exc


def _yaml(path: str | os.PathLike[str]) -> Source:
    source = _of_ultralytics(Path(str(path)), _build(path))
    _settle(source.model)
    source.notes.append("random weights: the file is for timing and tests only, it detects nothing")
    return source


def _settle(model: Any) -> None:
    """Fit the batch-norm statistics of a network with random weights to images.

    With the initial statistics, mean 0 and variance 1, activations vanish layer by layer and the output is constant,
    so that a comparison would pass whatever the layers compute.
    """
    import torch

    from ..runtime.image import blob, letterbox
    from .drawn import drawn_images

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    kept = [m.momentum for m in norms]
    for m in norms:
        m.momentum = None  # cumulative average
        m.reset_running_stats()
    model.train()
    try:
        with torch.no_grad():
            model(torch.from_numpy(blob([letterbox(im, (256, 256))[0] for im in drawn_images(4)])))
    finally:
        model.eval()
        for m, momentum in zip(norms, kept):
            m.momentum = momentum
            if m.running_var is not None:
                m.running_var.mul_(CALM)


def _yaml_with_weights(cfg: str | os.PathLike[str], file: Path) -> Source:
    """Build the YAML with the checkpoint's number of classes, then load all of its weights."""
    _check_file(file)
    state: dict[str, Any] | None = None
    names: dict[int, str] = {}
    imgsz = (640, 640)
    if file.suffix.lower() == ".pt":
        with contextlib.suppress(CheckpointError):
            loaded = pickles.load(file)
            state = loaded if _is_state(loaded) else None
    if state is None:
        donor = _checkpoint(file)
        state, names, imgsz = donor.model.state_dict(), donor.names, donor.imgsz
    source = _yaml(cfg)
    source.notes.clear()
    classes = len(names) or _classes(state, source.model.state_dict())
    if classes and classes != len(source.names):
        plain, old = type(source.model), source.model
        with quiet_host():
            source.model = plain(old.yaml, nc=classes, verbose=False).float().eval()
        source.model.args, source.model.task = old.args, old.task
    source.handle.model = widen_classes(source.model, state).eval()
    wanted = source.model.state_dict()
    bad = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
    more = [k for k in state if k not in wanted]
    if bad or more:
        first = (bad or more)[0]
        raise CheckpointError(
            f"{file}: its weights do not match {cfg}: {len(wanted) - len(bad)} of {len(wanted)} tensors match, "
            f"{len(more)} are left over; the first that does not match is {first}."
        )
    source.model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    if names:
        source.model.names = names
    return Source(file, "ultralytics", source.model, source.task, imgsz, source.handle)


def _classes(state: dict[str, Any], wanted: dict[str, Any]) -> int:
    """Infer the number of classes of a state dict: the length of the last bias whose shape differs from the YAML's."""
    off = [k for k, v in wanted.items() if k in state and state[k].shape != v.shape and v.ndim == 1]
    return int(state[off[-1]].shape[0]) if off else 0
