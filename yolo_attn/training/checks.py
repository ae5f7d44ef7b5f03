"""Check the ultralytics host, its arguments, the model and the weights before a training begins."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..detectors.host_paths import keep_apostrophes
from ..errors import CheckpointError, ConfigError, DataError, UsageError, did_you_mean, first_line
from ..files import expand
from ..log import announce

__all__ = ["check_checkpoint", "check_device", "check_model", "check_weights", "check_writable", "offline", "open_host"]

# Arguments of the host that the kit's own options replace.
OWN = {
    "model": "use --cfg for the model and --weights for its weights",
    "cfg": "use --cfg for the model and --hyp for hyperparameters",
    "resume": "use --resume",
    "task": "the task is always detection",
    "mode": "this command trains; 'yolo-attn yolo' accepts any mode",
}


def offline(needs_network: bool) -> None:
    """Set the host offline unless weights or data must be downloaded: a dead network delays each request by seconds.

    Takes effect before the host is imported only, since it reads the variable then.
    """
    if not needs_network and "ultralytics" not in sys.modules:
        os.environ.setdefault("YOLO_OFFLINE", "true")


def open_host(args: dict[str, Any]) -> Any:
    from ..errors import HostError
    from ..hook.install import failures, install, repair
    from ..patches import HOSTS

    try:
        import ultralytics
        from ultralytics.utils import DEFAULT_CFG_DICT
    except ImportError as exc:
        version = getattr(sys.modules.get("ultralytics"), "__version__", None)
        if version is not None and exc.name == "ultralytics.utils":
            raise HostError(
                f"ultralytics {version} is not supported: it is too old. "
                f"'pip install -U ultralytics'. Supported: {HOSTS[0].supported()}"
            ) from exc
        raise HostError(f"the ultralytics package cannot be imported: {exc}. 'pip install ultralytics'") from exc
    repair()
    install(strict=True)
    keep_apostrophes()
    if "ultralytics" in failures():
        raise failures()["ultralytics"]
    for key in list(args):
        if key in OWN:
            raise UsageError(f"'{key}=' is not accepted here; {OWN[key]}")
        if key not in DEFAULT_CFG_DICT:
            raise UsageError(
                f"'{key}' is not a training argument of ultralytics {ultralytics.__version__}."
                f"{did_you_mean(key, DEFAULT_CFG_DICT)}"
            )
    _check_values(args)
    check_device(args.get("device"))
    return ultralytics


def _check_values(args: dict[str, Any]) -> None:
    """Check values that the host would reject with a traceback, or would misinterpret."""
    from ultralytics.cfg import get_cfg

    try:
        get_cfg(overrides=dict(args))
    except (TypeError, ValueError, SyntaxError) as exc:
        raise UsageError(first_line(exc)) from exc
    epochs, batch, imgsz = (args.get(k) for k in ("epochs", "batch", "imgsz"))
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs {epochs}: must be at least 1")
    if batch not in (None, -1) and not (batch >= 1 if isinstance(batch, int) else 0 < batch < 1):
        raise UsageError(f"--batch {batch}: must be a number of images, or -1 to choose one that fits the GPU")
    sides = imgsz if isinstance(imgsz, (list, tuple)) else [imgsz]
    if imgsz is not None and not all(type(n) is int and n > 0 for n in sides):
        raise UsageError(f"--imgsz {imgsz}: must be a number of pixels, such as 640")


def check_model(options: argparse.Namespace, model: Any, args: dict[str, Any]) -> None:
    from ..weights.attention import attention_in

    rows = model.model.model
    if not hasattr(rows[-1], "nc"):
        raise ConfigError(f"{options.cfg}: the last row is {type(rows[-1]).__name__}; a detector's last row is Detect.")
    if not hasattr(rows[-1], "stride"):
        raise ConfigError(
            f"{options.cfg}: ends in {type(rows[-1]).__name__}, which the host does not train as a YOLO detector. "
            f"From Python: import yolo_attn; from ultralytics import RTDETR; RTDETR({options.cfg!r}).train(data=...)"
        )
    freeze = args.get("freeze") or 0
    last = len(rows) - 1
    bad = [n for n in (freeze if isinstance(freeze, list) else [freeze]) if isinstance(n, int) and not 0 <= n <= last]
    if bad:
        raise UsageError(f"--freeze {bad[0]}: the rows are 0 to {last}, of which the last is the head")
    frozen = set(freeze) if isinstance(freeze, list) else set(range(freeze))
    stuck = sorted(frozen & {int(path.split(".")[1]) for path in attention_in(model.model)})
    if stuck:
        announce("--freeze freezes the attention in rows %s as well; use --freeze base:3 to train it first", stuck)


def check_device(device: Any) -> None:
    """Check --device in one line; the host's message for a missing GPU is a page long.

    Raises:
        UsageError: It is no device, or this machine does not have it.
    """
    import torch

    text = "" if device is None else str(device).lower()
    words = [w.strip("'\" ") for w in text.replace("cuda:", "").strip("[]()").split(",")]
    words = ["0" if w == "cuda" else w for w in words if w]
    if words == ["cpu"] or any(w.startswith(("mps", "npu", "xpu", "tpu", "intel", "vulkan")) for w in words):
        return
    try:
        numbers = [int(w) for w in words]
    except ValueError:
        raise UsageError(f"--device {device}: must be cpu, mps, or numbers of GPUs, such as 0 or 0,1") from None
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if numbers and max(numbers) >= found:
        have = f"GPUs 0 to {found - 1}" if found > 1 else "GPU 0 only" if found else "no GPU that PyTorch can use"
        raise UsageError(f"--device {device}: this machine has {have}. --device cpu always works.")


def check_weights(name: str) -> str | None:
    if not name or name.lower() in ("''", '""', "none"):
        return None
    path = expand(name)
    if path.is_file():
        check_checkpoint(path)
        return str(path)
    if path.parent != Path(".") or path.suffix not in (".pt", ""):
        raise CheckpointError(f"weights not found: {name} (looked in {Path.cwd()})")
    return name  # a published name, which the host downloads


def check_checkpoint(path: Path) -> None:
    import zipfile

    if not path.is_file():
        raise CheckpointError(f"checkpoint not found: {path} (looked in {Path.cwd()})")
    if path.suffix == ".pt" and not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            legacy = file.read(2) == b"\x80\x02"  # format of torch before 1.6
        if not legacy:
            raise CheckpointError(
                f"{path} is not a checkpoint, or is cut short ({path.stat().st_size} bytes). Use another copy: last.pt, best.pt "
                f"or an epoch's file of the same run."
            )


def check_writable(folder: Path) -> None:
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"cannot write to {folder}: {nearest} is {'not writable' if nearest.is_dir() else 'a file'}")
