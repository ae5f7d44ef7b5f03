"""`yolo-attn explain`: what a detector looks at, base beside attention, and whether the pictures mean anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import words
from ..runtime.boxes import CONF, IOU
from ..system.console import talk_aside

EPILOG = """examples:
  yolo-attn explain runs/train/exp/weights/best.pt my_images/
  yolo-attn explain se/weights/best.pt my_images/ --base plain/weights/best.pt -o why
needs torchcam: pip install 'yolo_attn[explain]'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("checkpoint", metavar="PT", help="checkpoint of ultralytics or YOLOv5, or a bundle")
    add("pictures", nargs="+", metavar="PATH", help="images, folders, globs, or a .txt that lists images")
    add("--base", metavar="PT", help="a detector of the same classes, whose detections are matched with the checkpoint's")
    add("-o", "--output", metavar="DIR", help="new or empty folder for the results (default runs/explain/NAME)")
    add("--imgsz", nargs="+", type=int, metavar="N", help="pixels: side, or height and width (default: as trained)")
    add("--conf", type=float, default=CONF, metavar="X", help=f"confidence from which a detection counts ({CONF})")
    add("--iou", type=float, default=IOU, metavar="X", help=f"IoU threshold of NMS ({IOU})")
    add("--max-det", type=int, default=3, metavar="N", help="detections in each image, the surest first (3)")
    add("--limit", type=int, default=32, metavar="N", help="images; of more, as many are drawn (32)")
    add("--draws", type=int, default=5, metavar="N", help="how often the weights are shuffled for what chance gives (5)")
    add("--layers", default="backbone", metavar="WHERE", help="backbone: features that the neck reads (default);\nhead: what Detect reads")
    add("--seed", type=int, default=0, metavar="N", help="of the drawing and the shuffling (0)")
    add("--lang", default="en", metavar="LANG", help="of the page: en or zh (en)")
    add("--host", metavar="DIR", help="YOLOv5 checkout that classic checkpoints need")
    add("--json", action="store_true", help="print the numbers as JSON; they are in explain.json as well")


def run(args: argparse.Namespace) -> int:
    """Measure, write the folder and print the numbers with their verdicts."""
    with words.command_line():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..inside.explain import Settings
    from ..inside.explain_report import as_json, lines, report
    from ..pages.texts import check_language
    from ..runtime.output import free_folder

    settings = Settings(
        imgsz=args.imgsz, conf=args.conf, iou=args.iou, max_det=args.max_det, limit=args.limit, draws=args.draws,
        layers=args.layers, seed=args.seed,
    )  # fmt: skip
    check_language(args.lang)
    if args.host and args.host != "ultralytics":
        from ..detectors.classic import use_host

        use_host(args.host)
    out = Path(args.output) if args.output else free_folder(Path("runs/explain") / Path(args.checkpoint).stem)
    with talk_aside(args.json):
        done = report(args.checkpoint, args.pictures, out, base=args.base, settings=settings, language=args.lang)
    if args.json:
        print(json.dumps(as_json(done), indent=1))
        return 0
    print("\n".join(lines(done)))
    print(f"results: {out / 'explain.html'}")
    return 0
