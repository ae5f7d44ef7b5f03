"""Find a model YAML by name, read it with clear errors, translate its dialect.

``yolov5s_se.yaml`` means scale s of ``yolov5_se.yaml``, in the working folder first and among the kit's second.
Two dialects exist: ``scales:`` with ``Detect, [nc]`` (ultralytics) and ``depth_multiple``, ``width_multiple``,
``anchors`` with ``Detect, [nc, anchors]`` (classic YOLOv5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..log import announce
from ..registry import plugins
from ..registry.plain import check_size
from .misread import misread
from .reader import read_mapping
from .schedule import Schedule
from .start import check_start, with_start

__all__ = [
    "ask_start",
    "configs_folder",
    "list_configs",
    "load_ultralytics",
    "locate",
    "read",
    "split_scale",
    "validate",
]

SCALES = "nsmlx"
WANTED = "A model YAML has 'nc', 'backbone' and 'head'."
START = "YOLO_ATTN_START"  # how attention begins in every model file read, where a command line asks for it
_NAME = re.compile(rf"^(yolo(?:e-)?v?\d+)([{SCALES}])(6?)(?![a-zA-Z0-9])(.*)$")


def configs_folder() -> Path:
    """The folder of the YAMLs that ship with the kit."""
    from .. import model_cfgs

    return Path(next(iter(model_cfgs.__path__)))


def list_configs() -> list[str]:
    """Return the names of the shipped YAMLs, without scale letter, sorted."""
    return sorted(p.name for p in configs_folder().glob("*.yaml"))


def split_scale(name: str) -> tuple[str, str]:
    """Split `yolov5s_se` into `yolov5_se` and `s`; `yolov5s6_se` into `yolov5-p6_se` and `s`.

    The letter is empty where the name has none.
    """
    match = _NAME.match(name)
    if match is None:
        return name, ""
    base, letter, six, rest = match.groups()
    return f"{base}{'-p6' if six else ''}{rest}", letter


def locate(name: str | os.PathLike[str]) -> Path | None:
    """Return the file that a model name means, or None where only the host may know it.

    Looked for, in this order: the very path; the path without its scale letter; the same two in the kit.
    """
    path = Path(os.path.expanduser(str(name)))
    if not path.name:  # "." or ""
        return None
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(path.name + ".yaml")
    unified = path.with_name(split_scale(path.stem)[0] + path.suffix)
    places = [path, unified]
    if path.parent == Path("."):
        places += [configs_folder() / path.name, configs_folder() / unified.name]
    return next((p for p in places if p.is_file()), None)


def require(name: str | os.PathLike[str]) -> Path:
    """Return the file that a model name means.

    Raises:
        ConfigError: Nothing of that name in the working folder, the kit or the ultralytics package.
    """
    found = locate(name) or _of_host(name)
    if found is None:
        stem = split_scale(Path(str(name)).stem)[0]
        known = [Path(n).stem for n in list_configs()]
        hint = did_you_mean(stem, known)
        raise ConfigError(
            f"model YAML not found: {name} (looked in {Path.cwd()} and in the kit).{hint} "
            f"'yolo-attn list --configs' shows the kit's."
        )
    return found


def _of_host(name: str | os.PathLike[str]) -> Path | None:
    import importlib.util

    spec = importlib.util.find_spec("ultralytics")
    if spec is None or not spec.origin or Path(str(name)).parent != Path("."):
        return None
    stem = Path(str(name)).stem
    wanted = {f"{stem}.yaml", f"{split_scale(stem)[0]}.yaml"}
    folder = Path(spec.origin).parent / "cfg" / "models"
    return next((p for p in sorted(folder.rglob("*.yaml")) if p.name in wanted), None)


def read(path: Path) -> dict[str, Any]:
    """Read a model YAML.

    Raises:
        ConfigError: Not readable, not YAML, a key twice, empty, or no mapping.
    """
    return read_mapping(path, ConfigError, WANTED)


def validate(d: dict[str, Any], file: str) -> None:
    """Check the shape of a model dictionary: its rows, and where each row's `from` points.

    Raises:
        ConfigError: Names file and row.
    """
    for part in ("backbone", "head"):
        if not isinstance(d.get(part), list):
            raise ConfigError(f"{file}: has no list '{part}'. A model YAML has 'nc', 'backbone' and 'head'.")
    if not d["backbone"]:
        raise ConfigError(f"{file}: 'backbone' has no rows.")
    nc = d.get("nc")
    if type(nc) is not int or nc < 1:
        found = f"got {nc!r}" if "nc" in d else "but there is none"
        raise ConfigError(f"{file}: 'nc' must be the number of classes, {found}.")
    Schedule.of(d)
    scales, scale = d.get("scales"), d.get("scale")
    if scales and not isinstance(scales, dict):
        raise ConfigError(f"{file}: 'scales' must map letters to [depth, width, max_channels].")
    for letter, numbers in (scales or {}).items():
        right = isinstance(numbers, (list, tuple)) and 2 <= len(numbers) <= 4 and all(map(_positive, numbers[:3]))
        if not right:
            raise ConfigError(f"{file}: scale '{letter}' must be [depth, width, max_channels], got {numbers!r}.")
    if scales and scale and scale not in scales:
        raise ConfigError(f"{file}: the name asks for scale '{scale}', but the file has {', '.join(map(str, scales))}.")
    for i, row in enumerate(d["backbone"] + d["head"]):
        part = "backbone" if i < len(d["backbone"]) else "head"
        spot = f"{file}, row {i} ({part})"
        if not isinstance(row, list) or len(row) != 4:
            raise ConfigError(f"{spot}: a row is [from, number, module, args], got {row!r}.")
        f, n, m, args = row
        if not isinstance(m, str):
            raise ConfigError(f"{spot}: the third column is the module's name, got {m!r}.")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"{spot} {row[:3]}: the number of repeats must be a positive integer, got {n!r}.")
        if not isinstance(args, list):
            raise ConfigError(f"{spot} {row[:3]}: the arguments must be a list, got {args!r}. Write [] for none.")
        for x in f if isinstance(f, list) else [f]:
            if isinstance(x, bool) or not isinstance(x, int):
                raise ConfigError(f"{spot} {row[:3]}: 'from' must be row numbers, got {f!r}.")
            if x >= i and not (i == 0 and x == 0):
                last = f"only rows 0 to {i - 1} exist before it" if i else "no row exists before it"
                raise ConfigError(f"{spot} {row[:3]}: 'from' is {x}, but {last}. Did an inserted row shift it?")
            if x < 0 and i + x < 0 and not (i == 0 and x == -1):
                raise ConfigError(f"{spot} {row[:3]}: 'from' is {x}, which lies before the first row.")
    check_size(d, file)


def ask_start(start: str) -> None:
    """Have attention begin so in every model file that this process and its children build from.

    Raises:
        UsageError: Neither ``identity`` nor ``paper``.
    """
    check_start(start)
    os.environ[START] = start


def as_asked(d: dict[str, Any]) -> dict[str, Any]:
    """Return a model dictionary whose attention begins as :func:`ask_start` asked; without that, `d` itself."""
    start = os.environ.get(START)
    if not start:
        return d
    started, without = with_start(d, start)
    if without:
        announce("%s: %s: no 'start' to set, begins as built", d.get("yaml_file"), ", ".join(sorted(set(without))))
    return started


def _positive(number: Any) -> bool:
    return isinstance(number, (int, float)) and number > 0


def settled(d: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a validated model dictionary as the hosts read it, and tell what in it is hardly meant.

    Several forks write a fourth number into `scales`, which no host reads; a head that reads a Concat is what remains
    where a row was inserted by hand.
    """
    for line in misread(d):
        announce("%s: %s", file, line)
    scales = d.get("scales")
    if not isinstance(scales, dict) or all(len(numbers) < 4 for numbers in scales.values()):
        return d
    announce("%s: the fourth number in 'scales' is ignored: [depth, width, max_channels] is what the hosts read", file)
    return {**d, "scales": {letter: list(numbers[:3]) for letter, numbers in scales.items()}}


def is_classic(d: dict[str, Any]) -> bool:
    """Whether a model dictionary is in the classic dialect: it has anchors."""
    return "anchors" in d or any("anchors" in row[3] for row in d.get("head") or () if len(row) == 4 and row[3])


def to_ultralytics(d: dict[str, Any], file: str) -> dict[str, Any]:
    """Translate the classic dialect for the anchor-free host: anchors are dropped, all else stays."""
    if not is_classic(d):
        return d
    announce("%s: anchors dropped, the ultralytics host is anchor-free", file)
    d = {k: v for k, v in d.items() if k != "anchors"}
    d["head"] = [[f, n, m, [a for a in args if a != "anchors"]] for f, n, m, args in d["head"]]
    return d


def load_ultralytics(name: str | os.PathLike[str], path: Path) -> dict[str, Any]:
    """Return the model dictionary of a file as the ultralytics host wants it.

    Args:
        name: As the user gave it; the scale letter is read from it, and the host keeps it as ``yaml_file``.
        path: The file that it means.

    Raises:
        ConfigError: The file is no valid model.
        PluginError: What it names under ``register:`` cannot be loaded.
    """
    d = read(path)
    d["scale"] = split_scale(Path(str(name)).stem)[1] or d.get("scale") or ""
    d["yaml_file"] = str(name)
    validate(d, str(name))
    plugins.load_register(d, path.parent, str(name))
    return as_asked(to_ultralytics(settled(d, str(name)), str(name)))
