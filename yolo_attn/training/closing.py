"""Messages after a training: whether anything was detected, and useful next commands."""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from pathlib import Path

from ..errors import ConfigError, DataError
from ..files import read_text
from ..model_yaml import find

__all__ = ["command", "found_nothing", "next_steps", "published"]


def command(*words: str) -> str:
    """Return a command line for training, in the form in which the user launched this one."""
    launched = Path(sys.argv[0]).name if sys.argv else ""
    front = "python train_detect.py" if launched == "train_detect.py" else "yolo-attn train"
    return " ".join([front, *map(shlex.quote, words)])


def next_steps(options: argparse.Namespace, best: Path) -> str:
    """Return three useful next commands, with the size and placement of this run."""
    family, letter = find.split_scale(Path(options.cfg).stem)
    weights = options.weights or published(family, letter)
    from_weights = ["--weights", weights] if weights else []
    own = ["--cfg", options.cfg, "--data", "my.yaml", *from_weights]
    try:
        find.require(options.cfg)
    except ConfigError:  # the model is in its checkpoint alone: from Python, or of a YAML that is elsewhere
        own = ["--data", "my.yaml", "--weights", str(best)]
    other = ["--cfg", _other_attention(family, letter), *(["--data", options.data] if options.data else [])]
    rows = [
        ("your own data", command(*own)),
        ("other attention", command(*other, *(["--weights", options.weights] if options.weights else []))),
        ("predict", f"yolo-attn yolo predict model={shlex.quote(str(best))} source=my_image.jpg"),
    ]
    width = max(len(r[0]) for r in rows) + 2
    return "next:\n" + "\n".join(f"  {name:<{width}}{line}" for name, line in rows)


def found_nothing(log: Path) -> str:
    """Return a message if precision, recall and mAP are 0 in every epoch, otherwise an empty string.

    Args:
        log: `results.csv` of either host.
    """
    try:
        rows = csv.DictReader(read_text(log, DataError).splitlines())
        epochs = [{k.strip(): v.strip() for k, v in row.items() if k and v} for row in rows]
    except DataError:
        return ""
    figures = [value for epoch in epochs for name, value in epoch.items() if name.startswith("metrics/")]
    if not figures or any(float(value) for value in figures):
        return ""
    many = f"all {len(epochs)} epochs" if len(epochs) > 1 else "the one epoch"
    return (
        f"Nothing was detected: precision, recall and mAP are 0 after {many}. "
        f"Train longer, use pretrained --weights, or check the labels in the images in {log.parent}."
    )


def _other_attention(family: str, letter: str) -> str:
    """Return the kit's closest YAML of this size and placement with ECA instead of SE, or SE instead of others."""
    base, _, rest = family.partition("_")
    module, bar, place = rest.partition("_")
    block = module[:-3] if module.endswith("eca") else module[:-2] if module.endswith("se") else ""
    wanted = "eca" if module.endswith("se") else "se"
    known = [Path(n).stem for n in find.list_configs()]
    for name in (
        f"{base}_{block}{wanted}{bar}{place}",
        f"{base}_{wanted}{bar}{place}",
        f"{base}_{wanted}",
        f"{base}_se",
    ):
        if name in known and name != family:
            return f"{_sized(name, letter)}.yaml"
    return f"yolov5{letter or 's'}_{wanted}.yaml"


def _sized(stem: str, letter: str) -> str:
    """Return the name of a scale: `yolov5-p6_se` and `s` give `yolov5s6_se`."""
    base, bar, rest = stem.partition("_")
    return f"{base.replace('-p6', '')}{letter}{'6' if base.endswith('-p6') else ''}{bar}{rest}"


def published(family: str, letter: str) -> str:
    """Return the name of the published weights of a model's family and size, or an empty string if there are none.

    Args:
        family: The model's name without scale letter, such as ``yolov5_se``.
        letter: The scale letter; empty means n.
    """
    base, _, rest = family.partition("_")
    if "resnet" in rest:  # another backbone
        return ""
    if base in ("yolov5", "yolov5-p6"):
        return f"{_sized(base, letter or 'n')}u.pt"
    return f"{base}{letter or 'n'}.pt" if base in ("yolov8", "yolo11", "yolo12", "yolo26") else ""
