"""The flags of `train_detect.py`: those of YOLOv5, and `key=value` for any other argument of the host."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UsageError
from ..files import expand
from ..model_yaml.places import PLACEMENTS
from ..model_yaml.reader import read_mapping
from ..model_yaml.schedule import frozen_epochs
from ..system.console import Parser

__all__ = ["host_arguments", "pair", "parse", "parser", "split_commas"]

EXAMPLES = """examples:
  python train_detect.py                                             # embedded data set, a few minutes on a CPU
  python train_detect.py --cfg yolov5s_eca.yaml                      # the same with ECA
  python train_detect.py --cfg yolov5s_se.yaml --data my.yaml --weights yolov5su.pt --img 640 --batch 16 --epochs 100
  python train_detect.py --weights yolov8n.pt --attention ECA --where neck --data my.yaml    # without writing a YAML
  python train_detect.py --cfg my_attention.yaml --data my.yaml --plugin my_attn.py --device 0,1
  python train_detect.py --resume runs/train/exp/weights/last.pt
  python train_detect.py --data my.yaml lr0=0.002 mosaic=0.5         # any other argument of the host
"""

# Training from scratch on the embedded data set in a few minutes on two cores: small images and many small steps.
# With the host's nominal batch size of 64, gradients of eight batches would be accumulated before each step.
EMBEDDED = {
    "imgsz": 128, "batch": 8, "nbs": 8, "epochs": 20, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 1,
    "mosaic": 0.0, "close_mosaic": 0, "scale": 0.3,
}  # fmt: skip
# Defaults of YOLOv5 where those of ultralytics differ.
YOLOV5 = {"imgsz": 640, "batch": 16, "epochs": 100, "optimizer": "SGD", "patience": 100, "workers": 8}

# Gains and thresholds of the anchor-based loss, whose values do not apply to an anchor-free host.
ANCHOR_LOSS = frozenset(
    ["box", "cls", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "anchors", "fl_gamma", "label_smoothing"]
)


def parser() -> Parser:
    """Return the parser of the flags."""
    p = Parser(
        prog="train_detect.py",
        description="Train a YOLO detector with attention; without --data, on the embedded data set.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add(
        "--cfg",
        metavar="YAML",
        help="model YAML, by name or path (default yolov5s_se.yaml)",
    )
    add("--data", metavar="YAML", help="data set YAML (default: the embedded data set)")
    add(
        "--weights",
        default="",
        metavar="PT",
        help="initial weights; without --cfg, also their model (default: train from scratch)",
    )
    add(
        "--start",
        choices=["identity", "paper", "yaml"],
        help="with --weights: initial weights of new attention (default identity)",
    )
    add(
        "--attention",
        metavar="NAME",
        help="insert this module into the model of --cfg or --weights",
    )
    add(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="PLACE",
        help=f"with --attention: {', '.join(PLACEMENTS)} (default neck)",
    )
    add(
        "--after",
        nargs="+",
        action="extend",
        default=[],
        metavar="TYPE",
        help="with --attention: insert after rows of these types (C3) or these row numbers",
    )
    add(
        "--args",
        action="append",
        default=[],
        dest="attention_args",
        metavar="KEY=VALUE",
        help="with --attention: option of the module, e.g. reduction=8; repeatable",
    )
    add("--hyp", metavar="YAML", help="hyperparameter YAML of ultralytics or YOLOv5")
    add(
        "--epochs",
        type=int,
        metavar="N",
        help=f"number of epochs (default {YOLOV5['epochs']}; {EMBEDDED['epochs']} on the embedded data set)",
    )
    add(
        "--batch-size",
        "--batch",
        dest="batch",
        type=int,
        metavar="N",
        help=f"total batch size for all GPUs; -1 for autobatch (default {YOLOV5['batch']})",
    )
    add(
        "--imgsz",
        "--img",
        "--img-size",
        dest="imgsz",
        type=int,
        metavar="N",
        help=f"image size in pixels (default {YOLOV5['imgsz']}; {EMBEDDED['imgsz']} on the embedded data set)",
    )
    add("--device", default="", metavar="D", help="cuda device, i.e. 0 or 0,1 or cpu (default: GPU if available)")
    add("--workers", type=int, metavar="N", help="data loader workers per GPU (default 8)")
    add("--project", default="runs/train", metavar="DIR", help="save results to PROJECT/NAME (default runs/train)")
    add("--name", default="exp", metavar="NAME", help="save results to PROJECT/NAME (default exp)")
    add("--exist-ok", action="store_true", help="reuse an existing PROJECT/NAME, do not increment")
    add(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="PT",
        help="resume the most recent run, or this checkpoint",
    )
    add("--optimizer", metavar="NAME", help="SGD, Adam, AdamW, auto, ... (default SGD; AdamW on the embedded data set)")
    add("--cos-lr", action="store_true", help="cosine LR scheduler")
    add("--patience", type=int, metavar="N", help="early stopping: epochs without improvement (default 100)")
    add(
        "--freeze",
        nargs="+",
        metavar="N",
        help="freeze the first N rows or the listed rows; base[:K]: all but attention and head, for K epochs",
    )
    add("--lr-new", type=float, metavar="F", help="with --weights: learning rate of attention, relative to the rest")
    add("--seed", type=int, default=0, metavar="N", help="random seed (default 0)")
    add(
        "--cache",
        nargs="?",
        const="ram",
        default=None,
        choices=["ram", "disk"],
        help="cache images in ram (default) or on disk",
    )
    add("--single-cls", action="store_true", help="train multi-class data as single-class")
    add("--rect", action="store_true", help="rectangular training")
    add("--multi-scale", action="store_true", help="vary the image size by +/- 50%%")
    add("--save-period", type=int, metavar="N", help="save a checkpoint every N epochs")
    add("--log-gates", action="store_true", help="write the gates of attention for TensorBoard each epoch (needs tensorboard)")
    add("--noplots", action="store_true", help="save no plots")
    add("--noval", action="store_true", help="only validate the final epoch")
    add(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file with your own attention modules; repeatable",
    )
    add("--force", action="store_true", help="train even if the memory is estimated to be too small")
    add("--debug", action="store_true", help="show the full traceback of an error")
    add(
        "--export",
        nargs="?",
        const="onnx",
        default=None,
        metavar="FORMAT",
        help="export best.pt after training (default onnx)",
    )
    add("--no-export", action="store_true", help="do not export after training on the embedded data set")
    add(
        "--host",
        default="ultralytics",
        metavar="HOST",
        help="ultralytics (default), yolov5 (the package), or the path of a YOLOv5 checkout",
    )
    add("more", nargs="*", metavar="key=value", help="any other argument of the host")
    return p


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Returns:
        The options. ``extra`` contains the `key=value` pairs, ``embedded`` is true for the embedded data set,
        ``freeze_base`` is K of `--freeze base:K`, and ``chosen_cfg`` is true if --cfg was given.

    Raises:
        UsageError: An option is unknown, its value is wrong, or options contradict each other.
    """
    words, pairs = _split_pairs(list(argv))
    options = parser().parse_args(words)
    options.extra = dict(map(pair, [*pairs, *options.more]))
    options.embedded = not options.data and not options.resume and "data" not in options.extra
    options.chosen_cfg = options.cfg is not None
    options.made = None  # the YAML that --attention generates
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
        raise UsageError(
            "--freeze base and --lr-new treat attention and pretrained layers differently: they need --weights"
        )
    return options


def split_commas(given: Iterable[str]) -> list[str]:
    """Return the names in a list of words, of which one may hold several: ``SE,ECA CBAM``."""
    return [name for word in given for name in word.split(",") if name]


def _check_attention(options: argparse.Namespace) -> None:
    """Split lists at commas, and check the options that need or exclude --attention."""
    options.where, options.after = split_commas(options.where), split_commas(options.after)
    partners = {"--where": options.where, "--after": options.after, "--args": options.attention_args}
    lonely = next((flag for flag, value in partners.items() if value), None)
    if lonely and not options.attention:
        raise UsageError(f"{lonely} needs --attention NAME ('yolo-attn list' shows the names)")
    if options.attention and options.resume:
        raise UsageError("--attention is for new runs: --resume continues with the model of the checkpoint")


# Values of these flags may contain an equals sign.
_TEXT_FLAGS = ("--args", "--cfg", "--data", "--weights", "--hyp", "--project", "--name", "--plugin", "--host")


def _split_pairs(argv: list[str]) -> tuple[list[str], list[str]]:
    """Separate `key=value` pairs, so that flags with several values (`--freeze 0 1 lr0=0.1`) do not consume them."""
    words: list[str] = []
    pairs: list[str] = []
    for before, word in zip(["", *argv], argv):
        key, equals, _ = word.partition("=")
        is_pair = bool(equals) and key.isidentifier() and before not in _TEXT_FLAGS
        (pairs if is_pair else words).append(word)
    return words, pairs


def pair(text: str) -> tuple[str, Any]:
    """Read `key=value`, the value as Python would.

    Raises:
        UsageError: It is neither that nor an option.
    """
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
        raise UsageError(f"--freeze takes row numbers, base or base:K, got {' '.join(words)}") from None
    return numbers[0] if len(numbers) == 1 else numbers


def host_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Translate the options to training arguments of the ultralytics host.

    In increasing precedence: defaults, the --hyp file, flags, `key=value`.
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
    """Read a hyperparameter file; settings of YOLOv5's anchor-based loss are ignored with a message.

    Raises:
        ConfigError: The file is missing, not YAML, or not a mapping.
    """
    from ..log import announce

    try:
        hyp = read_mapping(path, ConfigError, "A hyperparameter file maps names to numbers.")
    except ConfigError as exc:
        raise ConfigError(f"--hyp {exc}") from exc
    if "obj" in hyp or "anchor_t" in hyp:  # a file of the classic host
        dropped = sorted(ANCHOR_LOSS & hyp.keys())
        announce("--hyp %s: ignoring %s, which belong to the anchor-based loss", path, ", ".join(dropped))
        hyp = {k: v for k, v in hyp.items() if k not in ANCHOR_LOSS}
    return hyp
