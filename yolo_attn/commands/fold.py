"""`yolo-attn fold best.pt --data my.yaml`: fold attention away that learned a constant."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import TYPE_CHECKING

from .. import words
from ..system.console import talk_aside
from ._tables import grid

if TYPE_CHECKING:
    from ..inside.fold import FoldResult

EPILOG = """Rows whose gate is a constant for each channel are removed, and the constants are multiplied into the layers that read them.
The result is an ordinary checkpoint with its YAML. The exit code is 1 if no row could be folded; nothing is written then."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", help="checkpoint (.pt) of either host, or bundle")
    add("--data", required=True, metavar="YAML", help="data set: gates are recorded on its train images, mAP on its val images")
    add(
        "--tolerance",
        type=float,
        default=0.02,
        metavar="X",
        help="furthest that a channel's gate may be from its mean in any image (0.02)",
    )
    add("-o", "--output", metavar="FILE", help="file to write, .pt or .bundle (default: WEIGHTS with _folded); YAML beside it")
    add("--imgsz", type=int, metavar="N", help="side of the images in pixels (default: as trained)")
    add("--train-images", type=int, default=500, metavar="N", help="train images at most, evenly spaced (500)")
    add("--batch", type=int, default=16, metavar="N", help="images at a time (16)")
    add("--device", default="", metavar="D", help="cpu, 0 (default: a GPU where there is one)")
    add("--host", metavar="DIR", help="YOLOv5 checkout that a classic checkpoint was trained with")
    add("--force", action="store_true", help="overwrite existing files")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Fold, measure, write and print what became of each row; 1 if none was folded."""
    os.environ.setdefault("YOLO_OFFLINE", "1")
    from ..inside.fold import fold

    if args.host and args.host != "ultralytics":
        from ..detectors.classic import use_host

        use_host(args.host)
    with words.command_line(), talk_aside(args.json):
        result = fold(
            args.weights, args.data, tolerance=args.tolerance, output=args.output, imgsz=args.imgsz, train_images=args.train_images,
            batch=args.batch, device=args.device, force=args.force,
        )  # fmt: skip
    if args.json:
        print(json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False))
    else:
        _print(result)
    return 0 if result.output else 1


def _print(result: FoldResult) -> None:
    rows = [
        [str(r.row), r.module, "-" if r.moves is None else f"{r.moves:.4f}", "folded" if r.folded else f"stays: {r.why}"]
        for r in result.rows
    ]
    print(grid(["row", "module", "moves", ""], rows))
    print(f"moves: furthest of a channel's gate from its mean, over {result.images} train images; tolerance {result.tolerance:g}")
    if result.output is None:
        print("nothing to fold: every row stays, and no file is written")
        return
    if result.map:
        m = result.map
        if m["change"] is None:
            print(f"mAP50-95: '{m['split']}' has no objects")
        else:
            low_high = m["interval"]
            within = "too few images for an interval" if low_high is None else f"95 % over images {low_high[0]:+.4f} to {low_high[1]:+.4f}"
            print(
                f"mAP50-95 on '{m['split']}', {m['images']} images: {m['before']:.4f} before, {m['after']:.4f} after "
                f"({m['change']:+.4f}; {within})"
            )
    if result.nodes:
        print(f"ONNX nodes: {result.nodes['before']} before, {result.nodes['after']} after")
    print(f"outputs with constant gates and after folding differ by {result.difference:.1g} of their scale")
    for note in result.notes:
        print(note)
    print(f"{result.output} and {result.cfg}: {len(result.folded)} of {len(result.rows)} rows folded")
