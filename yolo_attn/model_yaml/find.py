"""Find the file of a model by its name.

``yolov5s_se.yaml`` means scale s of ``yolov5_se.yaml``, searched in the working folder first, then in the kit.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from ..errors import ConfigError, did_you_mean

__all__ = ["configs_folder", "list_configs", "locate", "require", "split_scale"]

SCALES = "nsmlx"
_NAME = re.compile(rf"^(yolo(?:e-)?v?\d+)([{SCALES}])(6?)(?![a-zA-Z0-9])(.*)$")


def configs_folder() -> Path:
    """Return the folder of the YAMLs that ship with the kit."""
    from .. import model_cfgs

    return Path(next(iter(model_cfgs.__path__)))


def list_configs() -> list[str]:
    """Return the names of the shipped YAMLs, without scale letters, sorted."""
    return sorted(p.name for p in configs_folder().glob("*.yaml"))


def split_scale(name: str) -> tuple[str, str]:
    """Split the scale letter from a model's name.

    ``yolov5s_se`` becomes ``yolov5_se`` and ``s``, ``yolov5s6_se`` becomes ``yolov5-p6_se`` and ``s``. The letter is
    empty if the name has none.
    """
    match = _NAME.match(name)
    if match is None:
        return name, ""
    base, letter, six, rest = match.groups()
    return f"{base}{'-p6' if six else ''}{rest}", letter


def locate(name: str | os.PathLike[str]) -> Path | None:
    """Return the file that a model's name means, or None if only the host may know it.

    The search order is the path itself, the path without its scale letter, and both names in the kit.
    """
    path = Path(os.path.expanduser(str(name)))
    if not path.name:  # "." or ""
        return None
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(path.name + ".yaml")
    unified = path.with_name(split_scale(path.stem)[0] + path.suffix)
    candidates = [path, unified]
    if path.parent == Path("."):
        candidates += [configs_folder() / path.name, configs_folder() / unified.name]
    return next((p for p in candidates if p.is_file()), None)


def require(name: str | os.PathLike[str]) -> Path:
    """Return the file that a model's name means.

    Raises:
        ConfigError: No such file in the working folder, the kit or the ultralytics package.
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
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or not spec.origin or Path(str(name)).parent != Path("."):
        return None
    stem = Path(str(name)).stem
    wanted = {f"{stem}.yaml", f"{split_scale(stem)[0]}.yaml"}
    folder = Path(spec.origin).parent / "cfg" / "models"
    return next((p for p in sorted(folder.rglob("*.yaml")) if p.name in wanted), None)
