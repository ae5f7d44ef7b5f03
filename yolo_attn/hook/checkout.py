"""Find classic YOLOv5: the folder of a checkout, or of the ``yolov5`` package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import HostError
from ..files import expand, read_source

__all__ = ["find_host"]


def find_host(name: str) -> Path:
    """Return the folder with ``train.py`` and ``models/yolo.py``.

    Args:
        name: ``yolov5`` for the package, otherwise the folder of a checkout.

    Raises:
        HostError: The package is not installed, or the folder is not a YOLOv5 checkout.
    """
    folder = expand(name)
    if name == "yolov5" and not (folder / "train.py").is_file():
        spec = importlib.util.find_spec("yolov5")
        if spec is None or not spec.submodule_search_locations:
            raise HostError(
                "--host yolov5: the yolov5 package is not installed. 'pip install yolov5', or name a checkout."
            )
        folder = Path(next(iter(spec.submodule_search_locations)))
    if not folder.is_dir():
        raise HostError(
            f"--host {name}: no such folder (looked in {Path.cwd()}). Give ultralytics, yolov5 or the path of a checkout."
        )
    missing = [n for n in ("train.py", "models/yolo.py", "utils/general.py") if not (folder / n).is_file()]
    if missing:
        raise HostError(f"--host {name}: not a YOLOv5 checkout: it has no {' and no '.join(missing)}.")
    if "parse_model" not in read_source(folder / "models" / "yolo.py"):
        raise HostError(f"--host {name}: not a YOLOv5 checkout: its models/yolo.py has no parse_model.")
    return folder.resolve()
