"""Latency of attention in a runtime: yolov5s with SE and ECA after each C3 of the backbone, and plain yolov5s.

    python benchmarks/onnx_latency.py                      onnxruntime, batch 1, 640 x 640, one thread
    python benchmarks/onnx_latency.py --format tflite      another runtime, by the name of its format
    python benchmarks/onnx_latency.py --threads 2 --imgsz 320 --models yolov5n.yaml yolov5n_cbam.yaml

All are exported, verified and run in turns, so that other load on the machine affects all of them alike. The ratio is
the median over rounds of a model's time divided by that of the first model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("YOLO_OFFLINE", "1")

import numpy as np

from yolo_attn.export.formats.table import named, suffix_of
from yolo_attn.export.single import export
from yolo_attn.runtime.bench import measure
from yolo_attn.runtime.session import Detector

AIM = 1.03


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["yolov5s.yaml", "yolov5s_se.yaml", "yolov5s_eca.yaml"])
    parser.add_argument("--format", type=named, default="onnx", help="as of yolo-attn export (default: onnx)")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", metavar="FILE", help="also write the results as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        detectors, nodes, sizes = [], [], []
        for i, model in enumerate(args.models):
            target = Path(folder) / f"{i}{suffix_of(args.format)}"
            made = export(model, format=args.format, imgsz=args.imgsz, output=target, log=lambda line: None)
            detectors.append(Detector(made.path, threads=args.threads, spin=False))
            nodes.append(made.report.get("graph", {}).get("nodes"))
            sizes.append(made.report["bytes"] / 1e6)
        x = np.random.default_rng(0).random((1, 3, args.imgsz, args.imgsz), dtype=np.float32)
        timings = measure(detectors, [x] * len(detectors), rounds=args.rounds, warmup=5)
    rows = [
        {"model": m, "ms": t.median, "spread_ms": t.spread, "ratio": t.ratio, "nodes": n, "megabytes": s}
        for m, t, n, s in zip(args.models, timings, nodes, sizes)
    ]
    for r in rows:
        print(
            f"{r['model']:<24} {r['ms']:8.2f} ms +- {r['spread_ms']:.2f}  ratio {r['ratio']:.4f}  "
            f"{r['nodes'] or '?'} nodes  {r['megabytes']:.1f} MB"
        )
    print(
        f"{detectors[0].runtime} {detectors[0].version}, {platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, "
        f"batch 1, {args.imgsz} x {args.imgsz}, {args.rounds} rounds; the aim for SE and ECA is a ratio of {AIM}"
    )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
