"""Check a data set YAML before anything is built, so that a mistake costs a second and not an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .errors import DataError

__all__ = ["check", "image_files", "label_file"]

IMAGES = frozenset(
    [
        ".avif",
        ".bmp",
        ".dng",
        ".heic",
        ".heif",
        ".jp2",
        ".jpeg",
        ".jpeg2000",
        ".jpg",
        ".mpo",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
        ".pfm",
    ]
)


def check(name: str) -> bool:
    """Check a data set that is on this machine.

    Args:
        name: The YAML's path.

    Returns:
        Whether the host may have to fetch something: a name that only the host knows, an address, a `download:` entry
        whose images are not here yet, or a font for class names beyond ASCII.

    Raises:
        DataError: Names file, key and path.
    """
    if "://" in name:
        return True
    path = Path(name).expanduser()
    if not path.is_file():
        if path.parent == Path(".") and _known_to_host(path.name):
            return True
        raise DataError(f"data set YAML not found: {name} (looked in {Path.cwd()})")
    d = _read(path)
    for key in ("train", "val"):
        if not d.get(key):
            raise DataError(f"{path}: has no '{key}:'. A data set YAML names 'train', 'val' and 'names'.")
    names, nc = d.get("names"), d.get("nc")
    if names is None and nc is None:
        raise DataError(f"{path}: has neither 'names:' nor 'nc:'.")
    if names is not None and nc is not None and len(names) != nc:
        raise DataError(f"{path}: 'nc: {nc}' contradicts the {len(names)} 'names'.")
    root = _root(d, path)
    for key in ("train", "val"):
        folders = d[key] if isinstance(d[key], list) else [d[key]]
        places = [root / str(f) for f in folders]
        missing = [p for p in places if not p.exists()]
        if missing:
            if d.get("download"):
                return True
            raise DataError(f"{path}: '{key}:' points to {missing[0]}, which does not exist.")
        images = [i for p in places for i in image_files(p)]
        if not images:
            raise DataError(f"{path}: '{key}:' has no images in {places[0]}.")
        if key == "train" and not any(_has_label(i) for i in images):
            raise DataError(
                f"{path}: '{key}:' has {len(images)} images and no labels: looked for {label_file(images[0])} and so on. "
                f"A label file has one line an object: class, centre x, centre y, width, height, in parts of the image."
            )
    words = names.values() if isinstance(names, dict) else names or ()
    return not all(str(w).isascii() for w in words)  # 类别: the host fetches a font that has these characters


def image_files(place: Path) -> list[Path]:
    """Return the images of a folder, or of a text file that lists them."""
    if place.is_file() and place.suffix.lower() == ".txt":
        lines = place.read_text(encoding="utf-8").split("\n")
        return [place.parent / t.strip() if t.startswith("./") else Path(t.strip()) for t in lines if t.strip()]
    if place.is_file():
        return [place]
    return sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGES)


def label_file(image: Path) -> Path:
    """Return where YOLO looks for an image's labels: the last `images` folder of its path becomes `labels`."""
    parts = list(image.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] == "images":
            parts[k] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _has_label(image: Path) -> bool:
    file = label_file(image)
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _root(d: dict[str, Any], path: Path) -> Path:
    given = d.get("path")
    if not given:
        return path.parent
    root = Path(str(given)).expanduser()
    if root.is_absolute():
        return root
    # The hosts try the YAML's folder, the working folder and their own folder of data sets.
    return next((r for r in _candidates(root, path) if r.exists()), path.parent / root)


def _candidates(root: Path, path: Path) -> Iterable[Path]:
    yield path.parent / root
    yield Path.cwd() / root
    try:
        from ultralytics.utils import DATASETS_DIR

        yield Path(DATASETS_DIR) / root
    except ImportError:
        return


def _read(path: Path) -> dict[str, Any]:
    try:
        d = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise DataError(f"{path}: is not valid YAML: {exc}") from exc
    if not isinstance(d, dict):
        raise DataError(f"{path}: is empty or no mapping. A data set YAML names 'train', 'val' and 'names'.")
    return d


def _known_to_host(name: str) -> bool:
    import importlib.util

    spec = importlib.util.find_spec("ultralytics")
    if spec is None or not spec.origin:
        return False
    folder = Path(spec.origin).parent / "cfg" / "datasets"
    return any(p.name == name for p in folder.rglob("*.yaml"))
