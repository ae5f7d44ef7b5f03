"""Check a data set YAML before anything is built, so that a mistake costs a second and not an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import expand, read_source, read_text
from ..model_yaml.reader import read_mapping

__all__ = ["check", "image_files", "label_file", "read_labels"]

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


WANTED = "A data set YAML names 'train', 'val' and 'names'."


def check(name: str, *, single_cls: bool = False) -> bool:
    """Check a data set that is on this machine.

    Args:
        name: The YAML's path.
        single_cls: The hosts train all classes as one, and take labels of any class.

    Returns:
        Whether the host may have to fetch something: a name that only the host knows, an address, a `download:` entry
        whose images are not here yet, or a font for class names beyond ASCII.

    Raises:
        DataError: Names file, key and path.
    """
    if "://" in name:
        return True
    path = expand(name)
    if not path.is_file():
        if path.parent == Path(".") and _known_to_host(path.name):
            return True
        if path.is_dir():
            inside = ", ".join(sorted(p.name for p in path.glob("*.y*ml"))) or "none in it"
            raise DataError(f"--data takes the data set's YAML, and {name} is a folder (YAML files: {inside})")
        raise DataError(f"data set YAML not found: {name} (looked in {Path.cwd()})")
    d = read_mapping(path, DataError, WANTED)
    for key in ("train", "val"):
        if not d.get(key):
            raise DataError(f"{path}: has no '{key}:'. {WANTED}")
    names = _names(d, path)
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
        _check_labels(images, len(names) if not single_cls else None, f"{path}: '{key}:'", needed=key == "train")
    return not all(n.isascii() for n in names)  # 类别: the host fetches a font that has these characters


def _names(d: dict[str, Any], path: Path) -> list[str]:
    """Return the names of the classes, numbered where the file only counts them."""
    names, nc = d.get("names"), d.get("nc")
    if names is None and nc is None:
        raise DataError(f"{path}: has neither 'names:' nor 'nc:'.")
    if nc is not None and (type(nc) is not int or nc < 1) and names is None:
        raise DataError(f"{path}: 'nc:' counts the classes, got {nc!r}.")
    if names is None:
        return [f"class_{i}" for i in range(int(nc or 0))]
    if not isinstance(names, (list, dict)) or not names:
        raise DataError(f"{path}: 'names:' must be a list of names or map 0, 1, ... to names, got {names!r}.")
    if isinstance(names, dict) and set(names) != set(range(len(names))):
        raise DataError(f"{path}: 'names:' must number its {len(names)} classes 0 to {len(names) - 1}, got {[*names]}.")
    if nc is not None and len(names) != nc:
        raise DataError(f"{path}: 'nc: {nc}' contradicts the {len(names)} 'names'.")
    return [str(n) for n in (names.values() if isinstance(names, dict) else names)]


def _check_labels(images: list[Path], classes: int | None, spot: str, *, needed: bool) -> None:
    """Refuse a set of images none of whose labels can be used, which the hosts find out late and with a traceback.

    One that can be used is enough: the hosts leave single bad files out, and say so.
    """
    first = ""
    for image in images:
        rows, problem = read_labels(image, classes)
        if rows and not problem:
            return
        first = first or problem
    form = "A label file has one line an object: class, centre x, centre y, width, height, in parts of the image."
    if first:
        raise DataError(f"{spot} has {len(images)} images and no labels that can be used. {first}. {form}")
    if needed:
        looked = f"looked for {label_file(images[0])} and so on"
        raise DataError(f"{spot} has {len(images)} images and no labels: {looked}. {form}")


def read_labels(image: Path, classes: int | None = None) -> tuple[list[list[float]], str]:
    """Read an image's labels by the hosts' rules.

    Args:
        image: The image.
        classes: How many there are; any number is taken when absent.

    Returns:
        The rows, class, x, y, width, height or the corners of a polygon, in parts of the image; and what is wrong
        with the first bad one, empty if nothing is.
    """
    file = label_file(image)
    rows: list[list[float]] = []
    try:
        lines = read_source(file).splitlines() if file.is_file() else []
    except OSError as exc:
        return rows, f"{file}: {exc.strerror or exc}"
    for number, line in enumerate(lines, 1):
        problem = ""
        try:
            row = [float(v) for v in line.split()]
        except ValueError:
            row, problem = [], f"{line.strip()!r} is not all numbers"
        if row:
            problem = _row_problem(row, classes)
        if problem:
            return rows, f"{file}, line {number}: {problem}"
        rows += [row] if row else []
    return rows, ""


def _row_problem(row: list[float], classes: int | None) -> str:
    if len(row) != 5 and (len(row) < 7 or len(row) % 2 == 0):
        return f"{len(row)} numbers, where a box has 5"
    if not row[0] >= 0 or row[0] % 1 or (classes is not None and row[0] >= classes):
        return f"class {row[0]:g}, where there are {f'0 to {classes - 1}' if classes else 'whole numbers from 0'}"
    outside = [v for v in row[1:] if not -0.01 <= v <= 1.01]  # the hosts' tolerance; not a number is outside too
    return f"{outside[0]:g} lies outside the image, whose sides are 0 to 1" if outside else ""


def image_files(place: Path) -> list[Path]:
    """Return the images of a folder, or of a text file that lists them."""
    if place.is_file() and place.suffix.lower() == ".txt":
        lines = read_text(place, DataError).split("\n")
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


def _root(d: dict[str, Any], path: Path) -> Path:
    given = d.get("path")
    if not given:
        return path.parent
    root = expand(str(given))
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


def _known_to_host(name: str) -> bool:
    import importlib.util

    spec = importlib.util.find_spec("ultralytics")
    if spec is None or not spec.origin:
        return False
    folder = Path(spec.origin).parent / "cfg" / "datasets"
    return any(p.name == name for p in folder.rglob("*.yaml"))
