"""A training folder that anyone left, of either host, with or without the kit: what it says of itself.

ultralytics writes `args.yaml`, classic YOLOv5 `opt.yaml` and `hyp.yaml`; both write `results.csv` and
`weights/best.pt`. Any of them may be missing or damaged: what the rest says is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FileError, YoloAttnError, first_line
from ..files import expand
from ..model_yaml.reader import read_mapping
from . import logs
from .results import Note

__all__ = ["GAINS", "Folder", "find", "read"]

OPTIONS = ("args.yaml", "opt.yaml")
SIGNS = (*OPTIONS, logs.FILE, "weights", "best.pt")
# What two trainings must share, or their difference may come from it. Names of both hosts; a key that only one of the two
# has says nothing.
SHARED = (
    "data epochs imgsz batch optimizer lr0 lrf momentum weight_decay warmup_epochs pretrained freeze cos_lr single_cls rect "
    "label_smoothing close_mosaic mosaic mixup copy_paste scale degrees translate shear perspective hsv_h hsv_s hsv_v fliplr "
    "flipud box cls obj dfl fraction multi_scale host"
).split()
GAINS = frozenset(["box", "cls", "obj", "dfl"])  # of a host's own loss: of two hosts they cannot be compared
ALSO = {"batch_size": "batch", "img_size": "imgsz", "img": "imgsz", "weights": "pretrained"}


@dataclass
class Folder:
    """One training.

    Args:
        path: The folder.
        config: What its model is called.
        seed: None where it says none.
        settings: Of :data:`SHARED`, as far as it says them; files by their names.
        data: The data set's YAML as it says it.
        log: Its epochs; None where there are none that can be read.
        best: Its best weights; None without.
        problems: What is missing or damaged.
    """

    path: Path
    config: str
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    log: logs.Log | None = None
    best: Path | None = None
    problems: list[Note] = field(default_factory=list)

    def lacks(self, key: str, **fields: Any) -> None:
        """Note what is missing or damaged; `key` as for :class:`yolo_attn.study.results.Note`."""
        self.problems.append(Note(key, {"run": str(self.path), **fields}))


def find(given: Iterable[str]) -> list[tuple[str, Path]]:
    """Return the training folders that words of a command line mean, each with the name that it is given or nothing.

    Args:
        given: Folders, files in them, folders of folders (``runs/train``), each also as ``NAME=FOLDER``.

    Raises:
        FileError: One is no training folder.
    """
    out: list[tuple[str, Path]] = []
    for word in given:
        name, equals, rest = word.partition("=")
        if not equals or expand(word).exists():
            name, rest = "", word
        path = expand(rest)
        if not path.exists():
            raise FileError(f"no such training folder: {rest} (looked in {Path.cwd()})")
        if path.is_file():
            path = path.parent.parent if path.parent.name == "weights" else path.parent
        if _is_training(path):
            out.append((name, path))
            continue
        below = sorted((p for p in path.iterdir() if p.is_dir() and _is_training(p)), key=_natural)
        if not below:
            raise FileError(f"{path}: is no training folder: it has none of {', '.join(SIGNS)}")
        out += [(name, p) for p in below]
    seen: set[Path] = set()
    return [(n, p) for n, p in out if not (p.resolve() in seen or seen.add(p.resolve()))]  # type: ignore[func-returns-value]


def _is_training(path: Path) -> bool:
    return any((path / sign).exists() for sign in SIGNS)


def _natural(path: Path) -> tuple[int, str]:
    """exp, exp2, exp10, as the hosts number them."""
    return len(path.name), path.name


def read(path: Path, name: str = "") -> Folder:
    """Read what a folder says of itself; what is missing or damaged is among its problems.

    Args:
        path: The folder.
        name: What its config is to be called; what it says itself when empty.
    """
    out = Folder(path, name)
    candidates = [path / "weights" / "best.pt", path / "best.pt", path / "weights" / "last.pt"]
    out.best = next((p for p in candidates if p.is_file()), None)
    if out.best is None:
        out.lacks("no_best")
    elif out.best.name == "last.pt":
        out.lacks("last_for_best")
    try:
        out.log = logs.read(path / logs.FILE)
    except FileError as exc:
        if (path / logs.FILE).is_file():
            out.lacks("left_out", reason=_without(path, exc))
        else:
            out.lacks("no_log")
    if out.log is not None and out.log.skipped:
        out.lacks("damaged_log", n=out.log.skipped)
    said = _options(out)
    out.settings = {k: _plain(v) for k, v in _merged(said).items() if k in SHARED and v is not None}
    if not isinstance(out.settings.get("pretrained"), str) or not out.settings["pretrained"]:  # `true` with a model's YAML is from scratch
        out.settings.pop("pretrained", None)
    if said:
        out.settings["host"] = "ultralytics" if "task" in said or "model" in said else "yolov5"
    planned = out.settings.get("epochs")
    if out.log is not None and isinstance(planned, int) and out.log.epochs[-1] < planned:
        out.lacks("short_log", n=out.log.epochs[-1], all=planned)
    out.data = str(said.get("data") or "")
    seed = said.get("seed")
    out.seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
    out.config = re.sub(r"[^\w.+-]", "_", name or _name(said) or path.name)[:80]  # becomes the name of a folder
    return out


def _without(path: Path, exc: BaseException) -> str:
    """An error's line without the folder, which the report names already."""
    return first_line(exc).replace(f"{path}/", "").replace(str(path), "")


def _options(out: Folder) -> dict[str, Any]:
    """What the training was asked for: of the host's file, else of the checkpoint."""
    found: dict[str, Any] = {}
    for file in (*OPTIONS, "hyp.yaml"):
        if (out.path / file).is_file():
            try:
                d = read_mapping(out.path / file, FileError, "It should hold the options of a training.")
            except YoloAttnError as exc:
                out.lacks("left_out", reason=_without(out.path, exc))
                continue
            if file == "hyp.yaml":
                d = {"hyp": d}
            found = {**d, **found}
    if not {"model", "cfg", "weights"} & set(found):
        held = _of_checkpoint(out.best) if out.best is not None else {}
        if not held:
            out.lacks("no_options")
        found = {**held, **found}
    return found


def _of_checkpoint(file: Path) -> dict[str, Any]:
    """What a checkpoint says of its training; no code of it is run."""
    from ..weights import pickles

    try:
        held = pickles.load(file)
    except YoloAttnError:  # said where it is opened
        return {}
    for key in ("train_args", "opt"):
        d = held.get(key) if isinstance(held, Mapping) else None
        if isinstance(d, Mapping):
            return {str(k): v for k, v in d.items()}
    return {}


def _merged(said: Mapping[str, Any]) -> dict[str, Any]:
    hyp = said.get("hyp")
    out = {**(hyp if isinstance(hyp, Mapping) else {}), **{k: v for k, v in said.items() if k != "hyp"}}
    for old, new in ALSO.items():
        if old in out:
            out.setdefault(new, out[old])
    return out


def _plain(value: Any) -> Any:
    """A setting as it is compared: a file by its name, whatever folder it lay in; one side of a square."""
    if isinstance(value, (list, tuple)):
        return _plain(value[0]) if value and all(v == value[0] for v in value) else str(list(value))
    if isinstance(value, str) and value.lower().endswith((".yaml", ".yml", ".pt")):
        return value.replace("\\", "/").rpartition("/")[2]
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _name(said: Mapping[str, Any]) -> str:
    """The model: of `cfg`, else of `model`, else of the weights that classic YOLOv5 took it from."""
    for key in ("cfg", "model", "weights"):
        value = said.get(key)
        if isinstance(value, str) and value.strip():
            return Path(value.replace("\\", "/")).stem
    return ""
