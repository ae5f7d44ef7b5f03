"""`yolo-attn gates best.pt --data my.yaml`: does the attention attend?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import words
from ..errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("weights", help="checkpoint (.pt) of ultralytics or YOLOv5, or a bundle")
    parser.add_argument("--data", required=True, metavar="YAML", help="data set: means are taken on 'train', mAP on 'test' or 'val'")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder to write to (default: NAME_gates beside the checkpoint)")
    parser.add_argument("--imgsz", type=int, default=0, metavar="N", help="image size in pixels (default: the detector's)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images at a time (default 16)")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="images to measure on at most, evenly spaced (default 500)")
    parser.add_argument("--train-images", type=int, default=200, metavar="N", help="training images for the means at most (default 200)")
    parser.add_argument("--tolerance", type=float, default=0.02, metavar="X", help="a channel whose standard deviation over images is at most this is still (default 0.02)")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="classes to draw (default: the six that most images hold)")
    parser.add_argument("--no-test", action="store_true", help="gates alone, without the frozen-gate test; needs no labels")
    parser.add_argument("--device", default="", metavar="DEVICE", help="cpu, or a GPU's number (default: a GPU if there is one)")
    parser.add_argument("--host", metavar="DIR", help="YOLOv5 checkout that classic checkpoints need")
    parser.add_argument("--lang", default="en", metavar="LANG", help="language of the report: en (default) or zh")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and print a sentence for each row."""
    for name in ("batch", "images", "train_images"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if args.imgsz < 0 or not 0 <= args.tolerance < 1:
        raise UsageError(f"--imgsz takes pixels and --tolerance a number of at least 0 and below 1, got {args.imgsz} and {args.tolerance:g}")
    from ..inside import gates_of_file

    with words.command_line():
        done = gates_of_file.run(
            args.weights, args.data, output=args.output, imgsz=args.imgsz, batch=args.batch, most=args.images,
            train_most=args.train_images, tolerance=args.tolerance, classes=args.classes, test=not args.no_test,
            device=args.device, host=args.host, language=args.lang,
        )  # fmt: skip
    if args.json:
        print(json.dumps({**done.numbers, "report": str(done.page)}, indent=2))
        return 0
    from ._tables import grid

    if done.lines:
        print(grid(["gates", "mAP50-95", "change", "95 % interval"], done.lines))
        print("\nintervals: over images, of all lines together\n")
    print("\n".join(done.sentences))
    print(f"\n{done.page}: figures and tables; {Path(done.page).with_name('gates.csv').name} has every channel")
    return 0
