"""`yolo-attn export best.pt`: ONNX, TensorRT or a bundle, proved equal to PyTorch."""

from __future__ import annotations

import argparse
import os


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("weights", help="a checkpoint (.pt), a bundle, or a model YAML for a file with fresh weights")
    parser.add_argument("--format", default="onnx", metavar="NAME", help="onnx (default), engine (TensorRT) or bundle")
    parser.add_argument(
        "--imgsz", nargs="+", type=int, metavar="N", help="side, or height and width, in pixels (default: as trained)"
    )
    parser.add_argument("--dynamic", action="store_true", help="let batch, height and width vary")
    parser.add_argument("--half", action="store_true", help="fp16 inside, fp32 at input and output")
    parser.add_argument("--int8", metavar="PICTURES", help="also write an int8 file, calibrated on this folder")
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX operator set (default: the host's choice)")
    parser.add_argument("--nms", action="store_true", help="put NMS into the file, one picture a run (not for OpenCV)")
    parser.add_argument(
        "--simplify", dest="simplify", action="store_true", default=True, help="slim the graph (default)"
    )
    parser.add_argument("--no-simplify", dest="simplify", action="store_false", help="leave the graph as traced")
    parser.add_argument("--cfg", metavar="YAML", help="build this model YAML and put the checkpoint's weights into it")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="pictures for the proof (default: drawn ones)")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="largest relative difference (default 1e-4, half 5e-2)"
    )
    parser.add_argument("--host", metavar="DIR", help="the YOLOv5 checkout that a classic checkpoint was trained with")
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: beside the checkpoint)")


def run(args: argparse.Namespace) -> int:
    """Export, prove, and print where the files are."""
    os.environ.setdefault("YOLO_OFFLINE", "1")  # an export needs nothing from the network
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
