"""`yolo-attn export best.pt`: write ONNX, TensorRT or a bundle, and verify it against PyTorch."""

from __future__ import annotations

import argparse
import os


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("weights", help="checkpoint (.pt), bundle, or model YAML (random weights)")
    parser.add_argument("--format", default="onnx", metavar="NAME", help="onnx (default), engine (TensorRT) or bundle")
    parser.add_argument(
        "--imgsz",
        nargs="+",
        type=int,
        metavar="N",
        help="image size in pixels: side, or height and width (default: as trained)",
    )
    parser.add_argument("--dynamic", action="store_true", help="dynamic batch, height and width")
    parser.add_argument("--half", action="store_true", help="fp16 weights and computation, fp32 input and output")
    parser.add_argument(
        "--int8", metavar="DIR", help="also write an int8 file, calibrated on the images of this folder"
    )
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
    parser.add_argument("--cfg", metavar="YAML", help="build this model YAML and load the checkpoint's weights into it")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="images to verify with (default: generated ones)")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="largest relative difference (default 1e-4; 5e-2 with --half)"
    )
    parser.add_argument("--host", metavar="DIR", help="YOLOv5 checkout that a classic checkpoint was trained with")
    parser.add_argument("-o", "--output", metavar="FILE", help="output file (default: beside the checkpoint)")


def run(args: argparse.Namespace) -> int:
    """Export, verify and print the paths of the files."""
    os.environ.setdefault("YOLO_OFFLINE", "1")  # an export needs no network
    from ..export.onnx import export

    if args.host and args.host != "ultralytics":
        from ..detectors.classic import use_host

        use_host(args.host)
    export(
        args.weights,
        format=args.format,
        imgsz=args.imgsz,
        dynamic=args.dynamic,
        half=args.half,
        opset=args.opset,
        nms=args.nms,
        simplify=args.simplify,
        output=args.output,
        images=args.images,
        tolerance=args.tolerance,
        cfg=args.cfg,
        int8=args.int8,
    )
    return 0
