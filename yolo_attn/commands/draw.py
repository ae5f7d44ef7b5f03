"""`yolo-attn draw yolov5s_se.yaml -o model.svg`: a model as people draw YOLO in papers."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from ..errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("models", nargs="+", metavar="YAML", help="model YAML, checkpoint or bundle; a second one is drawn with what is different in it")
    add("-o", "--output", required=True, metavar="FILE", help="the picture: .svg, .pdf, .png, or .dot for Graphviz")
    add("--imgsz", "--img", type=int, default=640, metavar="N", help="image size in pixels (default 640)")
    add("--lang", choices=("en", "zh"), default="en", help="language of the labels (default en)")
    add("--force", action="store_true", help="overwrite FILE")


def run(args: argparse.Namespace) -> int:
    """Draw, and print what the picture shows."""
    os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing here needs a network
    from ..inside.draw.api import draw_models, target_of

    if args.imgsz < 32:
        raise UsageError(f"--imgsz must be at least 32, got {args.imgsz}")
    scene = draw_models(args.models, args.output, imgsz=args.imgsz, language=args.lang, force=args.force)
    words = [f"{len([i for i in scene.items if i.state != 'removed'])} rows", f"{len(scene.links)} arrows"]
    states = Counter(i.state for i in scene.items if i.state)
    if scene.base:
        words += [f"{states[s]} {s}" for s in ("added", "changed", "removed") if states[s]] or ["no difference"]
    print(f"{target_of(args.output)}: {scene.name}, {', '.join(words)}")
    return 0
