"""The model YAML for `train_detect.py --attention ECA --where neck`.

It is generated, named like the kit's own (``yolov8n_eca_neck.yaml``), used for training and kept in the run's folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..detectors import attaching
from ..errors import CheckpointError, ConfigError, UsageError, first_line
from ..files import write_text
from ..hook import resolve
from ..log import announce
from ..model_yaml import find, load, placement
from ..registry import plugins
from ..weights import checkpoint
from . import runs

__all__ = ["Made", "attached", "keep", "made_for"]

_UNWRITTEN = ("yaml_file", attaching.BEFORE)  # keys of a dictionary in memory, not of a file


@dataclass(frozen=True)
class Made:
    """A generated YAML: its file name and text."""

    name: str
    text: str

    def write(self, folder: Path) -> Path:
        """Write it into a folder and return its path."""
        file = folder / self.name
        write_text(file, self.text)
        return file


def made_for(options: argparse.Namespace) -> Made:
    """Generate the YAML: the model of --cfg, or else of --weights, with the requested attention.

    Raises:
        UsageError: No such placement, module or option.
        ConfigError: --cfg is not a valid model, or names files under ``register:``, which are relative to its folder.
        CheckpointError: The checkpoint does not contain its model YAML.
    """
    asked = _asked(options)
    if options.chosen_cfg or not options.weights:
        path = find.require(options.cfg)
        d = load.read(path)
        stem = Path(options.cfg).stem
        _check_register(d, options)
        text = placement.insert(options.cfg, options.attention, **asked)
        return Made(_name(stem, options), text)
    d, stem = _rows_in(options.weights)
    _check_register(d, options)
    return Made(_name(stem, options), _text(placement.insert(d, options.attention, **asked)))


def attached(options: argparse.Namespace, file: Path) -> tuple[Any, Made]:
    """Insert attention into a checkpoint of the ultralytics host, which contains its model.

    Returns:
        The ``YOLO`` object, and its YAML.

    Raises:
        YoloAttnError: As :func:`yolo_attn.attach`.
    """
    from ..detectors.classic import is_classic

    if file.suffix not in (".pt", ".bundle") or is_classic(file):
        kind = "is of classic YOLOv5" if file.suffix == ".pt" else "does not contain its model"
        host = "add --host yolov5, or " if file.suffix == ".pt" else ""
        raise CheckpointError(f"{file} {kind}: {host}give the model with --cfg, such as --cfg yolov5s.yaml")
    asked = _asked(options)
    start = None if options.start == "yaml" else options.start or "identity"
    what = resolve.named(options.attention)
    if what is not None and options.start is None and "start" not in what.options:
        announce("%s has no identity start: the outputs change until it is trained", options.attention)
        start = None
    model = attaching.attach(file, options.attention, start=start, **asked)
    d = model.model.yaml
    if start == "identity":
        announce("attention begins as the identity: the outputs stay those of the source until it is trained")
    return model, Made(Path(str(d["yaml_file"])).name, _text(d))


def keep(trainer: Any, made: Made) -> None:
    """Write the YAML into the folder of a run; a callback of the ultralytics trainer."""
    if runs.first_rank():
        made.write(Path(trainer.save_dir))


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    options.attention = plugins.resolve(options.attention)  # FILE.py:Class becomes a registered name
    where = options.where or ([] if options.after else ["neck"])
    args = dict(map(_option, options.attention_args))
    return {"where": where or None, "after": options.after or None, "args": args or None}


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--args takes KEY=VALUE, got {text!r}")
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as exc:  # PyYAML raises ValueError for an invalid date
        raise UsageError(f"--args {text}: '{value}' is not a YAML value: {first_line(exc)}") from exc


def _name(stem: str, options: argparse.Namespace) -> str:
    asked = _asked(options)
    return attaching.file_name(stem, options.attention, asked["where"] or [], asked["after"] or []) + ".yaml"


def _rows_in(weights: str) -> tuple[dict[str, Any], str]:
    """Return the model dictionary of a checkpoint, read without unpickling, and the stem of its name."""
    found = checkpoint.read(weights)
    if not found.yaml:
        raise CheckpointError(f"{weights} does not contain its model; give it with --cfg, such as --cfg yolov5s.yaml")
    name = found.yaml.get("yaml_file") or getattr(found.model, "yaml_file", None)
    return dict(found.yaml), Path(str(name)).stem if name else Path(weights).stem


def _check_register(d: Mapping[str, Any], options: argparse.Namespace) -> None:
    files = [str(v) for v in (d.get("register") or {}).values() if ".py" in str(v)]
    if files:
        raise ConfigError(
            f"{options.cfg}: names {files[0]} under 'register:', relative to its own folder. Write the new YAML there: "
            f"yolo-attn insert {options.cfg} --module {options.attention} ... -o NEW.yaml, then train with --cfg NEW.yaml"
        )


def _text(d: Mapping[str, Any]) -> str:
    from ..detectors.bundle import plain

    written = plain({k: v for k, v in d.items() if k not in _UNWRITTEN and v is not None and v != ""})
    parts = {part: written.pop(part) for part in ("backbone", "head")}
    text = str(yaml.safe_dump(written, sort_keys=False, default_flow_style=None))
    for part, rows in parts.items():
        text += f"\n{part}:\n" + "".join(f"  - {_flow(row)}\n" for row in rows)
    return text


def _flow(row: Any) -> str:
    return str(yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=10_000)).strip()
