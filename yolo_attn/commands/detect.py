"""`yolo-attn detect best.onnx --source ...`: run an exported model without torch or ultralytics."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UsageError
from ..runtime.boxes import CONF, IOU, MAX_DET
from ..system.console import talk_aside, write_out
from ._options import add_runtime, size_for

if TYPE_CHECKING:
    from ..runtime.source import Frame
    from ..runtime.tasks import Seen


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", help="file or folder that yolo-attn export wrote")
    parser.add_argument(
        "--source",
        required=True,
        nargs="+",
        metavar="PATH",
        help="image, folder, glob, video, .txt list, camera number or stream URL",
    )
    add_runtime(parser)
    parser.add_argument(
        "--imgsz", nargs="+", type=int, metavar="N", help="image size in pixels, for files with dynamic shapes"
    )
    parser.add_argument("--conf", type=float, default=CONF, metavar="X", help=f"confidence threshold (default {CONF})")
    parser.add_argument("--iou", type=float, default=IOU, metavar="X", help=f"NMS IoU threshold (default {IOU})")
    parser.add_argument(
        "--max-det", type=int, default=MAX_DET, metavar="N", help=f"maximum detections per image (default {MAX_DET})"
    )
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="keep only these classes, by number or name")
    parser.add_argument("--agnostic", action="store_true", help="class-agnostic NMS")
    parser.add_argument("-o", "--output", "--out", metavar="DIR", help="new or empty folder for results (default runs/detect/MODEL)")
    parser.add_argument("--no-save", action="store_true", help="do not save annotated images")
    parser.add_argument("--save-txt", action="store_true", help="save results to labels/NAME.txt")
    parser.add_argument("--quiet", action="store_true", help="print only the totals, not a line per image")
    parser.add_argument("--save-json", action="store_true", help="save results to detections.json")
    parser.add_argument(
        "--json", action="store_true", help="print the results as JSON, one image a line; pictures are saved only with -o"
    )


def run(args: argparse.Namespace) -> int:
    """Detect, print one line per image and save the requested results."""
    with talk_aside(args.json):
        told = _run(args)
    from ..runtime.output import as_text

    if args.json:
        write_out(as_text(told))
    return 0


def _run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Do so, and return what was found, as JSON has it."""
    from ..runtime.output import Writer, free_folder
    from ..runtime.predict import Clock, look
    from ..runtime.session import Detector
    from ..runtime.source import Source

    for name, value in (("conf", args.conf), ("iou", args.iou)):
        if not 0 <= value <= 1:
            raise UsageError(f"--{name} must be between 0 and 1, got {value}")
    if args.threads < 0:
        raise UsageError(f"--threads must be at least 0, got {args.threads}")
    if args.max_det < 1:
        raise UsageError(f"--max-det must be at least 1, got {args.max_det}")
    detector = Detector(
        args.model, runtime=args.runtime, threads=args.threads, provider=args.provider, unproved=args.unproved
    )
    if args.provider != "auto" and detector.runtime != "onnxruntime":
        raise UsageError(f"--provider is for onnxruntime, {args.model} is run by {detector.runtime}")
    for note in detector.notes:
        print(f"note: {note}", file=sys.stderr)
    if detector.nms_inside and (args.iou != IOU or args.conf < CONF):
        print(
            f"{args.model}: contains NMS: --iou has no effect, and --conf only above the threshold it was exported with",
            file=sys.stderr,
        )
    if args.save_txt and detector.task != "detect":
        raise UsageError(f"--save-txt is for detectors, {args.model} is a model for {detector.task}: --json tells what it finds")
    if args.classes and detector.task == "classify":
        raise UsageError(f"--classes is for models that find objects, {args.model} is a classifier")
    size = size_for(args.imgsz, detector)
    classes = _classes(args.classes, detector.names)
    source = Source(*args.source)
    pictures_too = not args.no_save and not (args.json and not args.output)
    folder = Path(args.output) if args.output else free_folder(Path("runs/detect") / Path(args.model).stem)
    clock = Clock()
    pictures = boxes = told = 0
    began = time.perf_counter()
    with Writer(
        folder, detector.names, pictures=pictures_too, text=args.save_txt, as_json=args.save_json, keep=args.json
    ) as writer:
        for frame in source:
            clock.add("read", began)
            (found,) = look(
                detector,
                [frame.image],
                size=size,
                conf=args.conf,
                iou=args.iou,
                max_det=args.max_det,
                classes=classes,
                agnostic=args.agnostic,
                clock=clock,
            )
            write = time.perf_counter()
            writer.add(frame, found)
            clock.add("write", write)
            pictures, boxes = pictures + 1, boxes + len(found.boxes)
            for path in source.skipped[told:]:
                print(f"{path}: cannot be read, skipped", file=sys.stderr)
            told = len(source.skipped)
            if not args.quiet:
                of = f"/{len(source.files)}" if frame.index is None else ""
                spent = sum(v[-1] for v in clock.seconds.values() if v)
                print(f"{pictures}{of} {_described(frame)}: {_told(found, detector.names)} ({spent * 1e3:.0f} ms)")
            began = time.perf_counter()
    for path in source.skipped[told:]:
        print(f"{path}: cannot be read, skipped", file=sys.stderr)
    if not pictures:
        raise DataError(f"{' '.join(args.source)}: none of {len(source.files)} files can be read as an image or video")
    stages = ", ".join(f"{s} {ms:.1f}" for s, ms in clock.medians().items())
    what = f"{pictures} images classified" if detector.task == "classify" else f"{boxes} boxes in {pictures} images"
    print(f"{what}. Median ms per image, {detector.runtime}: {stages}")
    if pictures_too or args.save_txt or args.save_json:
        print(f"results: {folder}")
    return writer.entries


def _described(frame: Frame) -> str:
    """Path, frame number and size of an image."""
    frames = f"/{frame.frames}" if frame.frames else ""
    number = "" if frame.index is None else f" frame {frame.index + 1}{frames}"
    h, w = frame.image.shape[:2]
    return f"{frame.path}{number} {w}x{h}"


def _told(found: Seen, names: dict[int, str]) -> str:
    """What was found in one image, in a line."""
    if found.scores is not None:
        best = int(found.scores.argmax())
        return f"{names.get(best, best)} {found.scores[best]:.2f}"
    numbers = Counter(int(c) for c in found.boxes[:, 5])
    return ", ".join(f"{n} {names.get(c, c)}" for c, n in sorted(numbers.items())) or "nothing"


def _classes(wanted: list[str] | None, names: dict[int, str]) -> list[int] | None:
    if wanted is None:
        return None
    numbers = {n: k for k, n in names.items()}
    out = []
    for w in wanted:
        if w in numbers:
            out.append(numbers[w])
        elif w.isdigit() and (not names or int(w) in names):
            out.append(int(w))
        else:
            raise UsageError(f"the model has no class '{w}', only {', '.join(list(names.values())[:20])}")
    return out
