"""A checkout of classic, anchor-based YOLOv5: ``models/yolo.py`` and ``train.py --cfg``.

Its modules are called ``models`` and ``utils``, as many projects' are: they are recognised by what they define,
and anybody else's are left alone. Tried on v6.0, v6.1, v6.2, v7.0 and the newest commit; see :mod:`.yolov5_shared`
for what is patched and why. YOLOv5's ``models/tf.py`` has a parser of its own, for TensorFlow export, which
is not covered.
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
    """The git tag or commit of the checkout."""
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
