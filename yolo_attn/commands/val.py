"""`yolo-attn val best.onnx best_int8_openvino_model --data my.yaml`: mAP of exported files, each in its runtime."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import write_text
from ..system.console import talk_aside, write_out
from ._options import add_runtime, check_place, size_for

MEASURES = ("mAP50-95", "mAP50", "precision", "recall")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("models", nargs="+", help="files or folders that yolo-attn export wrote")
    parser.add_argument("--data", required=True, metavar="FILE", help="data set YAML")
    parser.add_argument("--split", choices=("val", "test", "train"), default="val", help="images to measure on (default val)")
    parser.add_argument(
        "--imgsz", nargs="+", type=int, metavar="N", help="image size in pixels, for files with dynamic shapes"
    )
    add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--save-json", metavar="FILE", help="also write the results as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure each file on the same images, and print a table; differences are to the first file."""
    with talk_aside(args.json):
        report = _measured(args)
        if not args.json:
            _print(report)
    if args.json:
        write_out(json.dumps(report, indent=2) + "\n")
    if args.save_json:
        write_text(args.save_json, json.dumps(report, indent=2) + "\n")
    return 0


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from ..evaluation.runs import file_figures
    from ..runtime.session import Detector

    if args.threads < 0:
        raise UsageError(f"--threads must be at least 0, got {args.threads}")
    check_place(args.save_json)
    detectors = [
        Detector(m, runtime=args.runtime, threads=args.threads, provider=args.provider, spin=False, unproved=args.unproved)
        for m in args.models
    ]
    notes = []
    for d in detectors:
        if args.provider != "auto" and d.runtime != "onnxruntime":
            raise UsageError(f"--provider is for onnxruntime, {d.path} is run by {d.runtime}")
        notes += d.notes
        if d.nms_inside:
            notes.append(f"{d.path}: contains NMS: what lies below the confidence it was exported with is lost to mAP")
    _tell(notes)
    sizes = [size_for(args.imgsz, d) or d.default_size for d in detectors]
    images, measured, more = file_figures(detectors, sizes, args.data, args.split)
    _tell(more)
    rows = [
        {"model": str(Path(m)), "runtime": d.runtime, "version": d.version, "provider": d.provider, "imgsz": list(size), **found}
        for m, d, size, found in zip(args.models, detectors, sizes, measured)
    ]
    return {"data": args.data, "split": args.split, "images": images, "rows": rows, "notes": notes + more}


def _tell(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _print(report: dict[str, Any]) -> None:
    rows = report["rows"]
    width = max(len(r["model"]) for r in [{"model": "model"}, *rows])
    wide = max(len(r["runtime"]) for r in [{"runtime": "runtime"}, *rows])
    print(f"{'model':<{width}}  {'runtime':<{wide}}  {'input':>9}  " + "  ".join(f"{m:>9}" for m in MEASURES) + "  difference")
    for r in rows:
        values = "  ".join(f"{'-' if r[m] is None else format(r[m], '.4f'):>9}" for m in MEASURES)
        print(f"{r['model']:<{width}}  {r['runtime']:<{wide}}  {'x'.join(map(str, r['imgsz'])):>9}  {values}  {_difference(r)}".rstrip())
    versions = ", ".join(dict.fromkeys(f"{r['runtime']} {r['version']} ({r['provider']})" for r in rows))
    print(f"{report['images']} images of '{report['split']}' of {report['data']}; {versions}")
    if len(rows) > 1:
        print("difference: of mAP50-95 to the first file's, with its 95 % interval over images, of all files together")


def _difference(row: dict[str, Any]) -> str:
    if row.get("difference") is None:
        return ""
    ends = row["difference_95"]
    return f"{row['difference']:+10.4f}" + ("" if ends is None else f" ({ends[0]:+.4f} to {ends[1]:+.4f})")
