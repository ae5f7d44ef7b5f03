"""Open checkpoints of classic YOLOv5, of a checkout or of the `yolov5` package, with that host.

Such a checkpoint pickles the host's classes, so the host must be importable: its folder is given with `--host` or is
the working directory, or the package is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError, YoloAttnError, first_line, shown
from ..hook.install import repair
from ..weights import pickles
from .source import Source

__all__ = ["is_classic", "open_classic", "quiet", "use_host"]

# Import names of what the hosts' code needs, where the package is called otherwise.
INSTALLED_AS = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "pkg_resources": "'setuptools<81'",
    "dateutil": "python-dateutil",
    "git": "gitpython",
}


def is_classic(file: Path) -> str:
    """Return the package of a checkpoint's classes, ``models`` or ``yolov5.models``, or an empty string for others.

    Reads names out of the pickle without running it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            data = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    except (zipfile.BadZipFile, StopIteration, OSError):
        return ""
    return next((p for p in ("yolov5.models", "models") if f"c{p}.yolo\n".encode() in data), "")


def use_host(name: str) -> None:
    """Make a YOLOv5 checkout importable.

    Raises:
        HostError: No such folder, or it is not YOLOv5.
    """
    from ..hook.checkout import find_host

    sys.path.insert(0, str(find_host(name)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what the host prints, logs and warns about."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def open_classic(file: Path) -> Source:
    """Open a classic checkpoint with its own host.

    Raises:
        CheckpointError: The host cannot be imported, or cannot load the file.
    """
    package = is_classic(file) or "models"
    here = os.getcwd()
    if package == "models" and here not in sys.path and Path("models/yolo.py").is_file():
        sys.path.insert(0, here)
    repair()
    try:
        with quiet():
            importlib.import_module(f"{package}.yolo")
        loader = importlib.import_module(f"{package}.experimental").attempt_load
    except ImportError as exc:
        raise _lacking(file, package, exc) from exc
    try:
        with quiet():
            model = loader(
                str(file.resolve()), fuse=False
            )  # an absolute path: the package looks for a bare name on the network
    except YoloAttnError:
        raise
    except pickle.UnpicklingError as exc:
        found = re.search(r"GLOBAL (\S+)", str(exc))  # of segmentation in v7.0, builtins.getattr
        if found is None:
            raise CheckpointError(f"{file}: YOLOv5 cannot load it: {first_line(exc)[:300]}") from exc
        raise CheckpointError(
            f"{file}: holds {shown(found[1])}, which PyTorch does not load from a file of unknown origin. If you trust where "
            f"it is from: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 yolo-attn ..."
        ) from exc
    except Exception as exc:
        raise CheckpointError(f"{file}: YOLOv5 cannot load it: {type(exc).__name__}: {first_line(exc)[:300]}") from exc
    if not hasattr(model, "stride") or not hasattr(model.model[-1], "anchors"):
        raise CheckpointError(f"{file}: is a YOLOv5 checkpoint, but not of a detector")
    task = "segment" if hasattr(model.model[-1], "proto") else "detect"
    return Source(file, "yolov5", model.float().eval(), task, _trained_at(file))


def _trained_at(file: Path) -> tuple[int, int]:
    """Return the size that a checkpoint was trained with, which the host's loader drops: 640 where none is told (v6.0)."""
    with contextlib.suppress(CheckpointError):  # a file that its host loads need not pass the stricter reader
        found = pickles.load(file, numbers=False)
        opt = found.get("opt") if isinstance(found, dict) else None
        size = (opt if isinstance(opt, dict) else getattr(opt, "__dict__", {})).get("imgsz")
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            return size, size
    return 640, 640


def _lacking(file: Path, package: str, exc: ImportError) -> CheckpointError:
    """Return the error that tells what could not be imported: the host itself, or a package that its code needs."""
    root = (exc.name or "").partition(".")[0]
    if not isinstance(exc, ModuleNotFoundError):
        return CheckpointError(
            f"{file}: is a checkpoint of classic YOLOv5, whose host's code cannot be imported: {first_line(exc)[:300]}"
        )
    if root not in ("", "models", "utils", "yolov5"):
        return CheckpointError(
            f"{file}: is a checkpoint of classic YOLOv5, whose host's code needs the package '{root}', which is not "
            f"installed: pip install {INSTALLED_AS.get(root, root)}"
        )
    hint = "pip install yolov5" if package != "models" else "name its checkout with --host DIR"
    return CheckpointError(f"{file}: is a checkpoint of classic YOLOv5, which needs that host's code: {hint}. ({exc})")
