"""The commands of `yolo-attn`, one a file, each with `configure(parser)` and `run(args)`."""

from __future__ import annotations

import argparse
import importlib

from ..system.console import Parser

__all__ = ["COMMANDS", "parser_of"]

COMMANDS = {
    "list": "list the attention modules or the model YAMLs of the kit",
    "show": "build a model YAML and compare parameters and GFLOPs with the model without attention",
    "draw": "draw a model: backbone, neck and head with channels and sizes, or two models beside each other",
    "check": "check an attention module: shapes, precision, gradients, saving, compilation, ONNX, cost",
    "env": "print versions, devices and patched hosts, for bug reports",
    "insert": "insert attention into a model YAML, or remove it",
    "adopt": "rewrite the model YAML of a fork, or a folder of them, to one that builds here",
    "transfer": "transfer pretrained weights into a model with attention, layer by layer",
    "train": "train a detector; same as train_detect.py",
    "compare": "does attention help? train several configs and seeds, and compare",
    "report": "tables and figures of a study, or of training folders that anyone left",
    "search": "which attention, where, with which start, or none: search within a budget",
    "explain": "what a detector looks at, base beside attention, and whether the pictures mean anything",
    "gates": "does the attention attend? its gates over images, and mAP with the gates frozen",
    "fold": "fold attention away that learned a constant, into the convolutions that read it",
    "export": "export a checkpoint to the runtimes (ONNX, OpenVINO, NCNN ...), each file verified against PyTorch",
    "detect": "run an exported detector in its runtime, without torch or ultralytics",
    "val": "mAP of exported files in their runtimes, without torch or ultralytics",
    "bench": "compare latency and size of detectors",
    "yolo": "run the ultralytics CLI with attention: yolo-attn yolo detect train model=yolov5s_se.yaml ...",
    "run": "run any Python script with attention: yolo-attn run train.py --cfg yolov5s_se.yaml ...",
    "patch": "print the parse hook as a diff of a models/yolo.py, for use without the run-time hook",
    "data": "generate the embedded data set",
    "completion": "print the completion script of a shell",
}


def parser_of(name: str) -> Parser:
    """Return the parser of a command that has one of its own.

    Args:
        name: A key of `COMMANDS`; not one that passes its command line on.
    """
    parser = Parser(prog=f"yolo-attn {name}", description=COMMANDS[name], formatter_class=argparse.RawTextHelpFormatter)
    importlib.import_module(f".{name}", __name__).configure(parser)
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file with your own attention modules; repeatable",
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parser.set_defaults(commands=COMMANDS, parser_of=parser_of)  # for the completion of all of them
    return parser
