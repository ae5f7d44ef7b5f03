"""`yolo-attn transfer`: pretrained weights into a model with attention, saved as a checkpoint to start from."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..errors import FileError, UsageError
from ..files import write_text
from ..weights import align, published, start_from

PUBLISHED = re.compile(r"yolo[\w-]+\.pt")  # as yolov5su.pt: the ultralytics host knows where it is


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "source",
        metavar="WEIGHTS",
        help="a .pt of ultralytics or YOLOv5, a state dict, or .safetensors; or a published name",
    )
    add("cfg", metavar="YAML", help="the model that shall have them: a name (yolov5s_se.yaml) or file")
    add("-o", "--output", metavar="FILE", help="the checkpoint to write (.pt); without it, only the report")
    add("--nc", type=int, metavar="N", help="classes of the new model (default: the YAML's)")
    add(
        "--start",
        choices=start_from.STARTS,
        default="identity",
        help="how new attention begins: identity, the model detects as before (default);\n"
        "paper, as its authors say; yaml, as the rows say",
    )
    add("--minimum", type=float, default=align.THRESHOLD, metavar="F", help="least share that must match (0.5)")
    add("--force", action="store_true", help="below it too, and overwrite FILE")
    add("--json", metavar="FILE", help="write the report here")
    add("--yolov5", metavar="DIR", help="write a checkpoint for the classic YOLOv5 checkout in this folder")


def run(args: argparse.Namespace) -> int:
    """Build, transfer, report, save."""
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
    if args.json:
        write_text(args.json, report.to_json() + "\n")
    if report.until_trained:
        print(report.until_trained)
    if output is None:
        return 0
    start_from.save(model, output, classic=bool(args.yolov5))
    print(f"{output}: {'--weights' if args.yolov5 else 'model= or --weights'} {output}")
    return 0
