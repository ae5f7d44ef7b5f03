"""`yolo-attn export best.pt --format onnx,openvino`: write a detector for its runtimes, each file verified against PyTorch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..export.several import Outcome


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("weights", help="checkpoint (.pt), bundle, or model YAML (random weights)")
    parser.add_argument(
        "--format",
        action="append",
        metavar="NAME",
        help="onnx (default), openvino, ncnn, mnn, tflite, executorch, rknn, coreml, torchscript, engine (TensorRT) or bundle; "
        "several with commas, or repeated",
    )
    parser.add_argument(
        "--imgsz",
        nargs="+",
        type=int,
        metavar="N",
        help="image size in pixels: side, or height and width (default: as trained, 640 where the checkpoint does not tell)",
    )
    parser.add_argument("--dynamic", action="store_true", help="dynamic batch, height and width, where the format has them")
    parser.add_argument("--half", action="store_true", help="fp16 weights and computation, fp32 input and output")
    parser.add_argument(
        "--int8", metavar="DIR", help="also write an int8 file, calibrated on the images of this folder"
    )
    parser.add_argument(
        "--int8-symmetric", action="store_true", help="with --int8: activations without a zero point, as TensorRT wants"
    )
    parser.add_argument(
        "--normalize-boxes",
        action="store_true",
        help="divide boxes by the image size, for toolchains that quantize with one scale for a tensor (ONNX)",
    )
    parser.add_argument("--chip", default="", metavar="NAME", help="processor of --format rknn, such as rk3566 (default: rk3588)")
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX opset version (default: the host's)")
    parser.add_argument("--nms", action="store_true", help="add NMS to the graph; batch size 1, not for OpenCV")
    parser.add_argument(
        "--simplify",
        dest="simplify",
        action="store_true",
        default=True,
        help="simplify the graph with onnxslim (default)",
    )
    parser.add_argument("--no-simplify", dest="simplify", action="store_false", help="keep the graph as traced")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    parser.add_argument("--cfg", metavar="YAML", help="build this model YAML and load the checkpoint's weights into it")
    parser.add_argument(
        "--data", metavar="YAML", help="data set: measure mAP of each file and of PyTorch on its validation images (detectors)"
    )
    parser.add_argument("--images", nargs="+", metavar="PATH", help="images to verify with (default: generated ones)")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="largest relative difference (default 1e-4; 5e-2 with --half)"
    )
    parser.add_argument(
        "--force", action="store_true", help="try what is known to fail with this version of the runtime; it is proved all the same"
    )
    parser.add_argument("--host", metavar="DIR", help="YOLOv5 checkout that a classic checkpoint was trained with")
    parser.add_argument("-o", "--output", metavar="PATH", help="output file, or a folder that exists (default: beside the checkpoint)")


def run(args: argparse.Namespace) -> int:
    """Export, verify and print the paths of the files; exit code 1 if one of several formats failed."""
    os.environ.setdefault("YOLO_OFFLINE", "1")  # an export needs no network
    from ..export.asked import Asked
    from ..export.several import export_several, formats_of

    formats = formats_of(args.format or ["onnx"])
    if args.host and args.host != "ultralytics":
        from ..detectors.classic import use_host

        use_host(args.host)
    asked = Asked(
        imgsz=args.imgsz,
        dynamic=args.dynamic,
        half=args.half,
        opset=args.opset,
        nms=args.nms,
        simplify=args.simplify,
        output=args.output,
        images=args.images,
        tolerance=args.tolerance,
        int8=args.int8,
        int8_symmetric=args.int8_symmetric,
        normalize_boxes=args.normalize_boxes,
        chip=args.chip,
        force=args.force,
        data=args.data,
    )
    log = (lambda line: print(line, file=sys.stderr)) if args.json else print
    done = export_several(args.weights, formats, asked, cfg=args.cfg, log=log)
    failed = [d for d in done if d.problem]
    if args.json:
        print(json.dumps([_row(d) for d in done], indent=2))
    elif len(done) > 1:
        print()
        for d in done:
            print(f"{d.format:<12}{d.problem or _told(d)}")
    for d in failed:
        print(f"yolo-attn export: {d.problem}", file=sys.stderr)
    return 1 if failed else 0


def _told(done: Outcome) -> str:
    assert done.result is not None
    proved = done.result.report.get("proof")
    how = "" if proved is None else ", verified" if proved["passed"] else ", converted, not proved on this machine"
    measured = done.result.report.get("map")
    if measured is not None:
        file, pytorch = (measured[k]["mAP50-95"] or 0.0 for k in ("file", "pytorch"))
        how += f", mAP50-95 {file:.4f} (PyTorch {pytorch:.4f})"
    return f"{done.result.path}{how}"


def _row(done: Outcome) -> dict[str, Any]:
    if done.result is None:
        return {"format": done.format, "problem": done.problem}
    return {"format": done.format, "path": str(done.result.path), "report": done.result.report}
