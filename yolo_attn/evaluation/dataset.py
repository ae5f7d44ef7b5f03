"""Check a data set before anything is built, so that a mistake is reported at once."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, shown
from ..files import expand, read_source, read_text
from ..model_yaml.reader import read_mapping

__all__ = ["check", "image_files", "label_file", "must_be_fetched", "on_disk", "places_of", "read_labels", "root_of"]

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


def check(name: str, *, single_cls: bool = False, splits: Sequence[str] = ("train", "val")) -> bool:
    """Check a local data set.

    Args:
        name: The path of its YAML.
        single_cls: All classes are trained as one, so that labels of any class are valid.
        splits: What is used of it; the first must have labels.

    Returns:
        Whether the host may have to download something: a data set that only the host knows, a URL, the images of a
        `download:` entry, or a font for class names beyond ASCII.

    Raises:
        DataError: The data set cannot be used; the message names file, key and path.
    """
    if "://" in name:
        return True
    path = expand(name)
    if not path.is_file():
        if path.parent == Path(".") and _known_to_host(path.name):
            return True
        if path.is_dir():
            inside = ", ".join(sorted(p.name for p in path.glob("*.y*ml"))) or "none"
            raise DataError(f"--data takes a data set YAML, but {name} is a folder (YAML files in it: {inside})")
        raise DataError(f"data set YAML not found: {name} (looked in {Path.cwd()})")
    d = read_mapping(path, DataError, WANTED)
    for key in splits:
        if not d.get(key):
            raise DataError(f"{path}: has no '{key}:'" + (f". {WANTED}" if key in ("train", "val") else ""))
    names = _names(d, path)
    root = root_of(d, path)
    given = expand(str(d.get("path") or root))
    if len(splits) > 1 and root == path.parent / given and not given.is_absolute() and root.resolve() != (Path.cwd() / given).resolve():
        raise DataError(f"{path}: 'path: {given}' is not looked for in the YAML's folder by the hosts. Write the whole path: {root.resolve()}")
    for key in splits:
        places = places_of(d[key], root)
        missing = [p for p in places if not p.exists()]
        if missing:
            if d.get("download"):
                return True
            raise DataError(f"{path}: '{key}:' points to {missing[0]}, which does not exist.")
        images = [i for p in places for i in image_files(p)]
        if not images:
            raise DataError(f"{path}: '{key}:' has no images in {places[0]}.")
        if not any(i.is_file() for i in images):
            way = "relative paths are of the working directory, those that begin with ./ of the list's folder"
            raise DataError(f"{path}: '{key}:' lists images of which none exists, the first is {images[0]} ({way}).")
        _check_labels(images, len(names) if not single_cls else None, f"{path}: '{key}:'", needed=key == splits[0])
    return not all(n.isascii() for n in names)  # 类别: the host downloads a font with these characters


def on_disk(name: str, split: str = "") -> dict[str, Any]:
    """Return a local data set as the hosts resolve it: the places of each split, and the classes by number.

    Args:
        name: The path of its YAML.
        split: The only one that is used, so that the others need not be on this machine; the hosts' two when empty.

    Raises:
        DataError: It cannot be used, or only a host can fetch it.
    """
    if not expand(name).is_file():
        raise DataError(f"{name}: no such file, and a data set that is downloaded needs a host: pip install ultralytics")
    check(name, splits=[split] if split else ["train", "val"])
    path = expand(name)
    d = read_mapping(path, DataError, WANTED)
    root = root_of(d, path)
    found: dict[str, Any] = {"names": dict(enumerate(_names(d, path)))}
    for key in [split] if split else ["train", "val", "test"]:
        places = places_of(d[key], root) if d.get(key) else []
        missing = [p for p in places if not p.exists()]
        if missing:
            raise DataError(f"{path}: '{key}:' points to {missing[0]}, which does not exist.")
        found[key] = [str(p) for p in places]
    return found


def must_be_fetched(name: str) -> bool:
    """Whether a data set, or a part of it, may have to be downloaded, which a host can."""
    path = expand(name)
    return not path.is_file() or bool(read_mapping(path, DataError, WANTED).get("download"))


def places_of(given: Any, root: Path) -> list[Path]:
    """Return the folders and lists of images of a split."""
    out = []
    for entry in map(str, given if isinstance(given, list) else [given]):
        place = root / entry
        # Roboflow writes `../train/images` for what lies beside the YAML, and the hosts know that
        out.append(root / entry[3:] if entry.startswith("../") and not place.exists() else place)
    return out


def _names(d: dict[str, Any], path: Path) -> list[str]:
    """Return the class names; generated ones if the YAML only gives `nc`."""
    names, nc = d.get("names"), d.get("nc")
    if names is None and nc is None:
        raise DataError(f"{path}: has neither 'names:' nor 'nc:'.")
    if nc is not None and (type(nc) is not int or nc < 1) and names is None:
        raise DataError(f"{path}: 'nc:' must be the number of classes, got {shown(nc)}.")
    if names is None:
        return [f"class_{i}" for i in range(int(nc or 0))]
    if not isinstance(names, (list, dict)) or not names:
        raise DataError(f"{path}: 'names:' must be a list of names, or map 0, 1, ... to names, got {shown(names)}.")
    if isinstance(names, dict):  # in order of their numbers, which some write as text
        names = {int(k) if isinstance(k, str) and k.isascii() and k.isdigit() else k: v for k, v in names.items()}
        names = {k: names[k] for k in sorted(names, key=lambda k: (not isinstance(k, int), k if isinstance(k, int) else str(k)))}
    if isinstance(names, dict) and list(names) != list(range(len(names))):
        raise DataError(f"{path}: 'names:' must number its {len(names)} classes 0 to {len(names) - 1}, got {[*names]}.")
    if nc is not None and len(names) != nc:
        raise DataError(f"{path}: 'nc: {nc}' contradicts the {len(names)} 'names'.")
    return [str(n) for n in (names.values() if isinstance(names, dict) else names)]


def _check_labels(images: list[Path], classes: int | None, key: str, *, needed: bool) -> None:
    """Refuse images of which no label can be used; the hosts fail late and with a traceback.

    One usable label is enough: the hosts skip single bad files with a warning.
    """
    first = ""
    for image in images:
        rows, problem = read_labels(image, classes)
        if rows and not problem:
            return
        first = first or problem
    form = "Each line of a label file is an object: class, center x, center y, width, height, relative to the image."
    if first:
        raise DataError(f"{key} has {len(images)} images and no labels that can be used. {first}. {form}")
    if needed:
        looked = f"looked for {label_file(images[0])}, ..."
        raise DataError(f"{key} has {len(images)} images and no labels: {looked}. {form}")


def read_labels(image: Path, classes: int | None = None) -> tuple[list[list[float]], str]:
    """Read an image's labels by the rules of the hosts.

    Args:
        image: The image.
        classes: Number of classes; any class is accepted when absent.

    Returns:
        The labels (class, then x, y, width, height or the corners of a polygon, relative to the image) up to the first
        invalid one, and the problem of that one, or an empty string.
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
            row, problem = [], f"{shown(line.strip())} is not all numbers"
        if row:
            problem = _row_problem(row, classes)
        if problem:
            return rows, f"{file}, line {number}: {problem}"
        rows += [row] if row else []
    return rows, ""


def _row_problem(row: list[float], classes: int | None) -> str:
    if len(row) != 5 and (len(row) < 7 or len(row) % 2 == 0):
        return f"{len(row)} numbers, but a box has 5"
    if not row[0] >= 0 or row[0] % 1 or (classes is not None and row[0] >= classes):
        return f"class {row[0]:g}, but classes are {f'0 to {classes - 1}' if classes else 'whole numbers from 0'}"
    outside = [v for v in row[1:] if not -0.01 <= v <= 1.01]  # the tolerance of the hosts; NaN is outside too
    return f"{outside[0]:g} is outside the image, 0 to 1" if outside else ""


def image_files(place: Path) -> list[Path]:
    """Return the images in a folder, or those that a text file lists."""
    if place.is_file() and place.suffix.lower() == ".txt":
        lines = read_text(place, DataError).split("\n")
        return [place.parent / t.strip() if t.startswith("./") else Path(t.strip()) for t in lines if t.strip()]
    if place.is_file():
        return [place]
    # as the hosts go through it: links to folders are followed, what is hidden (`._1.jpg` of macOS) is not looked at
    found = map(Path, glob.iglob(os.path.join(glob.escape(str(place)), "**", "*.*"), recursive=True))
    return sorted(p for p in found if p.suffix.lower() in IMAGES)


def label_file(image: Path) -> Path:
    """Return the path of an image's labels: the last `images` folder of its path becomes `labels`."""
    parts = list(image.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] == "images":
            parts[k] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def root_of(d: dict[str, Any], path: Path) -> Path:
    """Return the folder that a data set's paths start from."""
    given = d.get("path")
    if not given:
        return path.parent
    root = expand(str(given))
    if root.is_absolute():
        return root
    # The hosts try the working directory and their own folder of data sets; what is meant is mostly the YAML's folder.
    best, most = path.parent / root, 0
    splits = [d[key] for key in ("train", "val", "test") if d.get(key)]
    for there in (r for r in _candidates(root, path) if r.exists()):
        held = 1 + sum(all(p.exists() for p in places_of(split, there)) for split in splits)
        if held > most:
            best, most = there, held
        if held > len(splits):
            break  # the last of them is told by a host, which takes seconds to import
    return best


def _candidates(root: Path, path: Path) -> Iterable[Path]:
    yield Path.cwd() / root
    yield path.parent / root
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
