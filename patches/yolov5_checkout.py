"""A checkout of classic, anchor-based YOLOv5: ``models/yolo.py`` and ``train.py --cfg``.

Many projects have packages called ``models`` and ``utils``, so YOLOv5's are recognised by what they define, and others
are not patched. Tested with v6.0, v6.1, v6.2, v7.0 and the newest commit; :mod:`.yolov5_shared` describes the patches.
YOLOv5's ``models/tf.py`` has a parser of its own, for TensorFlow export, which is not patched.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

from .yolov5_shared import make

__all__ = ["HOST"]


def _belongs(module: ModuleType) -> bool:
    return module.__name__.partition(".")[0] in ("models", "utils")


def _version(module: ModuleType) -> str:
    """Git tag or commit of the checkout."""
    root = Path(getattr(module, "__file__", None) or "").resolve().parent.parent
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--tags", "--always", "--dirty"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            return told.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return "of unknown version"


HOST = make("yolov5 checkout", "", _belongs, _version)
