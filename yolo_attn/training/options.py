"""The flags of `train_detect.py`: YOLOv5's own, and `key=value` for every further argument of the host."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UsageError
from ..files import expand
from ..model_yaml.places import PLACES
from ..model_yaml.reader import read_mapping
from ..model_yaml.schedule import frozen_epochs
from ..system.console import Parser

__all__ = ["host_arguments", "parse"]

EXAMPLES = """examples:
  python train_detect.py                                             # the embedded data set, a few minutes on a CPU
  python train_detect.py --cfg yolov5s_eca.yaml                      # the same with ECA
  python train_detect.py --cfg yolov5s_se.yaml --data my.yaml --weights yolov5su.pt --img 640 --batch 16 --epochs 100
  python train_detect.py --weights yolov8n.pt --attention ECA --where neck --data my.yaml    # no YAML to write
  python train_detect.py --cfg my_attention.yaml --data my.yaml --plugin my_attn.py --device 0,1
  python train_detect.py --resume runs/train/exp/weights/last.pt
  python train_detect.py --data my.yaml lr0=0.002 mosaic=0.5         # any further argument of the host
"""

# The embedded data set in a few minutes on two cores, from scratch: small pictures and many small steps.
# With the host's nominal batch of 64, gradients of eight batches would be summed before each step.
EMBEDDED = {
    "imgsz": 128, "batch": 8, "nbs": 8, "epochs": 20, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 1,
    "mosaic": 0.0, "close_mosaic": 0, "scale": 0.3,
}  # fmt: skip
# YOLOv5's defaults, where the host's differ or the user would look for them.
YOLOV5 = {"imgsz": 640, "batch": 16, "epochs": 100, "optimizer": "SGD", "patience": 100, "workers": 8}

# Gains and thresholds of the anchor-based loss: the same words mean other numbers on an anchor-free host.
ANCHOR_LOSS = frozenset(
    ["box", "cls", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "anchors", "fl_gamma", "label_smoothing"]
)


def _parser() -> Parser:
    p = Parser(
        prog="train_detect.py",
        description="Train a YOLO detector with attention. Without --data: on the embedded data set.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add(
        "--cfg",
        metavar="YAML",
        help="model YAML, found by name or path; the letter is the scale (default yolov5s_se.yaml)",
    )
    add("--data", metavar="YAML", help="data set YAML (default: the embedded data set, drawn locally)")
    add(
        "--weights",
        default="",
        metavar="PT",
        help="start from these weights, by logical layer; without --cfg, with their own model (default: from scratch)",
    )
    add(
        "--start",
        choices=["identity", "paper", "yaml"],
        help="with --weights, how new attention begins: identity (default) leaves the pretrained detector as it is",
    )
    add(
        "--attention",
        metavar="NAME",
        help="put this attention into the model of --cfg or --weights; its YAML is kept in the run's folder",
    )
    add(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="PLACE",
        help=f"with --attention: {', '.join(PLACES)} (default neck)",
    )
    add(
        "--after",
        nargs="+",
        action="extend",
        default=[],
        metavar="TYPE",
        help="with --attention: behind rows of these types (C3) or these row numbers",
    )
    add(
        "--args",
        action="append",
        default=[],
        dest="attention_args",
        metavar="KEY=VALUE",
        help="with --attention: an option of it, such as reduction=8; repeatable",
    )
    add("--hyp", metavar="YAML", help="hyperparameters; YOLOv5's files too")
    add(
        "--epochs",
        type=int,
        metavar="N",
        help=f"default {YOLOV5['epochs']}; {EMBEDDED['epochs']} on the embedded data set",
    )
    add(
        "--batch-size",
        "--batch",
        dest="batch",
        type=int,
        metavar="N",
        help=f"images a step, for all GPUs together; -1 finds what fits (default {YOLOV5['batch']})",
    )
    add(
        "--imgsz",
        "--img",
        "--img-size",
        dest="imgsz",
        type=int,
        metavar="N",
        help=f"pixels (default {YOLOV5['imgsz']}; {EMBEDDED['imgsz']} on the embedded data set)",
    )
    add("--device", default="", metavar="D", help="cpu, 0, or 0,1 for several GPUs (default: a GPU when there is one)")
    add("--workers", type=int, metavar="N", help="data loader workers for each GPU (default 8)")
    add("--project", default="runs/train", metavar="DIR", help="results go to PROJECT/NAME (default runs/train)")
    add("--name", default="exp", metavar="NAME", help="default exp")
    add("--exist-ok", action="store_true", help="write into an existing PROJECT/NAME instead of a numbered one")
    add("--resume", nargs="?", const=True, default=False, metavar="PT", help="go on with the latest, or this, last.pt")
    add("--optimizer", metavar="NAME", help="SGD (default; AdamW on the embedded data set), Adam, AdamW, auto, ...")
    add("--cos-lr", action="store_true", help="cosine learning-rate schedule")
    add("--patience", type=int, metavar="N", help="epochs without improvement before stopping (default 100)")
    add(
        "--freeze",
        nargs="+",
        metavar="N",
        help="the first N rows, or the listed ones; base[:K]: all but attention and head, for K epochs",
    )
    add("--lr-new", type=float, metavar="F", help="learning rate of attention relative to the rest, with --weights")
    add("--seed", type=int, default=0, metavar="N", help="default 0")
    add(
        "--cache",
        nargs="?",
        const="ram",
        default=None,
        choices=["ram", "disk"],
        help="keep images in memory or on disk",
    )
    add("--single-cls", action="store_true", help="train as one class")
    add("--rect", action="store_true", help="rectangular batches")
    add("--multi-scale", action="store_true", help="vary the image size by half")
    add("--save-period", type=int, metavar="N", help="a checkpoint every N epochs")
    add("--noplots", action="store_true", help="no plots")
    add("--noval", action="store_true", help="validate only the last epoch")
    add(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with attention of your own; repeatable",
    )
    add("--force", action="store_true", help="train a model that needs more memory than there is")
    add("--debug", action="store_true", help="on an error, show the whole traceback")
    add("--export", nargs="?", const="onnx", default=None, metavar="FORMAT", help="export best.pt afterwards (onnx)")
    add("--no-export", action="store_true", help="no export after a run on the embedded data set")
    add(
        "--host",
        default="ultralytics",
        metavar="HOST",
        help="ultralytics, yolov5 (the package), or the path of a YOLOv5 checkout",
    )
    add("more", nargs="*", metavar="key=value", help="any further argument of the host")
    return p


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Returns:
        The options; ``extra`` holds the `key=value` pairs, ``embedded`` says whether the embedded data set is used.

    Raises:
        UsageError: With what is wrong.
    """
    words, pairs = _split_pairs(list(argv))
    options = _parser().parse_args(words)
    options.extra = dict(map(_pair, [*pairs, *options.more]))
    options.embedded = not options.data and not options.resume and "data" not in options.extra
    options.chosen_cfg = options.cfg is not None
    options.made = None  # the YAML that --attention makes
    _check_attention(options)
    options.cfg = options.cfg or ("yolov5s.yaml" if options.attention else "yolov5s_se.yaml")
    for name in ("epochs", "imgsz", "patience", "save_period"):
        value = getattr(options, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name.replace('_', '-')} must not be negative, got {value}")
    if options.epochs == 0 or options.imgsz == 0 or options.batch == 0:
        raise UsageError("--epochs, --imgsz and --batch must not be 0")
    options.freeze_base = 0
    if options.freeze is not None:
        epochs = frozen_epochs(options.freeze[0]) if len(options.freeze) == 1 else None
        if epochs is not None:
            options.freeze, options.freeze_base = None, epochs
        else:
            options.freeze = _freeze(options.freeze)
    if (options.freeze_base or options.lr_new is not None) and not options.weights:
        raise UsageError("--freeze base and --lr-new set attention apart from pretrained layers: they need --weights")
    return options


def _check_attention(options: argparse.Namespace) -> None:
    """Split lists at commas, and refuse what goes with --attention alone, or against it."""
    options.where = [p for w in options.where for p in w.split(",") if p]
    options.after = [a for w in options.after for a in w.split(",") if a]
    partners = {"--where": options.where, "--after": options.after, "--args": options.attention_args}
    lonely = next((flag for flag, value in partners.items() if value), None)
    if lonely and not options.attention:
        raise UsageError(f"{lonely} says more about --attention NAME, which is missing ('yolo-attn list' shows names)")
    if options.attention and options.resume:
        raise UsageError(
            "--resume goes on with the model of the checkpoint; --attention puts attention into a new run's"
        )


# A value of these may hold an equals sign of its own.
_TEXT_FLAGS = ("--args", "--cfg", "--data", "--weights", "--hyp", "--project", "--name", "--plugin", "--host")


def _split_pairs(argv: list[str]) -> tuple[list[str], list[str]]:
    """Take `key=value` words out, so that flags with several values (`--freeze 0 1 lr0=0.1`) leave them alone."""
    words: list[str] = []
    pairs: list[str] = []
    for before, word in zip(["", *argv], argv):
        key, equals, _ = word.partition("=")
        is_pair = bool(equals) and key.isidentifier() and before not in _TEXT_FLAGS
        (pairs if is_pair else words).append(word)
    return words, pairs


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"'{text}' is neither an option nor key=value. --help shows the options")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, {"true": True, "false": False, "none": None}.get(value.lower(), value)


def _freeze(words: list[str]) -> int | list[int]:
    try:
        numbers = [int(w) for part in words for w in part.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--freeze takes numbers of rows, or base, or base:K, got {' '.join(words)}") from None
    return numbers[0] if len(numbers) == 1 else numbers


def host_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the ultralytics host's training arguments that the options mean.

    Later wins: defaults, the --hyp file, flags, `key=value`.
    """
    args: dict[str, Any] = dict(EMBEDDED if options.embedded else YOLOV5)
    if options.hyp:
        args.update(read_hyp(Path(options.hyp)))
    flags = {
        "epochs": options.epochs, "batch": options.batch, "imgsz": options.imgsz, "workers": options.workers,
        "optimizer": options.optimizer, "patience": options.patience, "freeze": options.freeze,
        "save_period": options.save_period, "cache": options.cache,
    }  # fmt: skip
    args.update({k: v for k, v in flags.items() if v is not None})
    args.update(seed=options.seed, exist_ok=options.exist_ok, name=options.name)
    args["project"] = str(expand(options.project).resolve())
    switches = {
        "cos_lr": options.cos_lr, "single_cls": options.single_cls, "rect": options.rect,
    }  # fmt: skip
    args.update({k: True for k, v in switches.items() if v})
    if options.multi_scale:
        args["multi_scale"] = 0.5
    if options.noplots:
        args["plots"] = False
    if options.noval:
        args["val"] = False
    if options.device:
        args["device"] = options.device
    args.update(options.extra)
    return args


def read_hyp(path: Path) -> dict[str, Any]:
    """Read a hyperparameter file; of YOLOv5's, what belongs to the anchor-based loss is left out, and said.

    Raises:
        ConfigError: Not there, not YAML, or no mapping.
    """
    from ..log import announce

    try:
        hyp = read_mapping(path, ConfigError, "A hyperparameter file maps names to numbers.")
    except ConfigError as exc:
        raise ConfigError(f"--hyp {exc}") from exc
    if "obj" in hyp or "anchor_t" in hyp:  # a file of the classic host
        dropped = sorted(ANCHOR_LOSS & hyp.keys())
        announce("--hyp %s: %s belong to the anchor-based loss and are left out", path, ", ".join(dropped))
        hyp = {k: v for k, v in hyp.items() if k not in ANCHOR_LOSS}
    return hyp
