"""`yolo-attn transfer`: load pretrained weights into a model with attention and save it as a checkpoint."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..errors import FileError, UsageError
from ..files import write_text
from ..system.console import talk_aside
from ..weights import align, published, start_from
from ..weights.report import Report

PUBLISHED = re.compile(r"yolo[\w-]+\.pt")  # such as yolov5su.pt, which ultralytics can download


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "source",
        metavar="WEIGHTS",
        help="checkpoint (.pt) of ultralytics or YOLOv5, state dict, .safetensors, or a published name (yolov5su.pt)",
    )
    add("cfg", metavar="YAML", help="target model YAML, by name or path, e.g. yolov5s_se.yaml")
    add("-o", "--output", metavar="FILE", help="checkpoint (.pt) to write; without it, only the report is printed")
    add("--nc", type=int, metavar="N", help="number of classes (default: the YAML's)")
    add(
        "--start",
        choices=start_from.STARTS,
        default="identity",
        help="initial weights of new attention: identity (default), paper, or yaml (as the rows say)",
    )
    add(
        "--minimum",
        type=float,
        default=align.THRESHOLD,
        metavar="F",
        help="smallest fraction of tensors that must match (default 0.5)",
    )
    add("--force", action="store_true", help="accept fewer matches, and overwrite FILE")
    add("--json", nargs="?", const="-", metavar="FILE", help="write the report as JSON to FILE, or print it in place of the table")
    add("--yolov5", metavar="DIR", help="write a checkpoint for this checkout of classic YOLOv5")


def run(args: argparse.Namespace) -> int:
    """Build the model, transfer, print the report and save."""
    alone = args.json == "-"  # standard output then holds the JSON and nothing else
    with talk_aside(alone):
        report = _run(args)
    if alone:
        print(report.to_json())
    return 0


def _run(args: argparse.Namespace) -> Report:
    output = Path(args.output) if args.output else None
    if output is not None:
        if output.suffix != ".pt":
            raise UsageError(f"the output must be a .pt file, got {output}")
        if output.exists() and not args.force:
            raise FileError(f"{output} exists. Choose another name, or add --force to overwrite it.")
        if not output.parent.is_dir():
            raise FileError(f"the folder {output.parent} does not exist")
    source = args.source
    if not args.yolov5 and PUBLISHED.fullmatch(source) and not Path(source).is_file():
        source = str(published.fetch(source))
    model, report = start_from.build(
        source,
        args.cfg,
        start=args.start,
        nc=args.nc,
        minimum=args.minimum,
        force=args.force,
        yolov5=args.yolov5,
    )
    print(report.table())
    if args.json and args.json != "-":
        write_text(args.json, report.to_json() + "\n")
    if report.until_trained:
        print(report.until_trained)
    if output is None:
        return report
    start_from.save(model, output, classic=bool(args.yolov5))
    print(f"{output}: {'--weights' if args.yolov5 else 'model= or --weights'} {output}")
    return report
