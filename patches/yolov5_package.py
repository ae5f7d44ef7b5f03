"""The ``yolov5`` package, classic YOLOv5 as ``pip install yolov5``: ``yolov5.models.yolo``.

Tested with 7.0.14; :mod:`.yolov5_shared` describes the patches.
"""

from __future__ import annotations

import sys
from types import ModuleType

from .yolov5_shared import make

__all__ = ["HOST"]


def _belongs(module: ModuleType) -> bool:
    return module.__name__.partition(".")[0] == "yolov5"


def _version(module: ModuleType) -> str:
    return str(getattr(sys.modules.get("yolov5"), "__version__", "of unknown version"))


HOST = make("yolov5 package", "yolov5.", _belongs, _version)
