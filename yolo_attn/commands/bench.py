"""`yolo-attn bench a.onnx b.onnx ...`: compare latency and size of detectors in one run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import scratch, write_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("models", nargs="+", help="ONNX files; checkpoints and model YAMLs are exported first")
    parser.add_argument(
        "--imgsz",
        nargs="+",
        type=int,
        metavar="N",
        help="image size in pixels: side, or height and width (default 640)",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per run (default 1)")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads of the runtime (default: the runtime's choice)"
    )
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="timed runs of each model (default 50)")
    parser.add_argument("--warmup", type=int, default=5, metavar="N", help="runs before timing begins (default 5)")
    parser.add_argument(
        "--runtime", default="auto", metavar="NAME", help="each file's own (default); opencv for ONNX files"
    )
    parser.add_argument(
        "--provider", default="auto", metavar="NAME", help="onnxruntime provider: auto (default), cpu, cuda, ..."
    )
    parser.add_argument("--host", metavar="DIR", help="YOLOv5 checkout that classic checkpoints need")
    parser.add_argument("--save-json", metavar="FILE", help="also write the results as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure all models and print one table; ratios are relative to the first model."""
    import numpy as np

    from ..runtime.bench import measure
    from ..runtime.image import round_up
    from ..runtime.session import Detector

    for name, least in (("batch", 1), ("rounds", 1), ("warmup", 0), ("threads", 0)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if args.imgsz and (len(args.imgsz) > 2 or min(args.imgsz) < 1):
        raise UsageError(f"--imgsz takes one side, or height and width, in pixels, got {args.imgsz}")
    if args.host and args.host != "ultralytics":
        from ..detectors.classic import use_host

        use_host(args.host)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch())
        files = [_onnx(m, i, args, folder) for i, m in enumerate(args.models)]
        detectors, inputs = [], []
        for file in files:
            d = Detector(file, runtime=args.runtime, threads=args.threads, provider=args.provider, spin=False)
            wanted = round_up((args.imgsz[0], args.imgsz[-1]), d.stride) if args.imgsz else None
            if wanted and d.size and d.size != wanted:
                raise UsageError(f"{file}: accepts {d.size[0]}x{d.size[1]} only, but --imgsz is {args.imgsz}")
            size = d.size or wanted or d.default_size
            if d.batch and d.batch != args.batch:
                raise UsageError(
                    f"{file}: accepts a batch of {d.batch} only, but --batch is {args.batch}. Export it with --dynamic."
                )
            detectors.append(d)
            inputs.append(np.random.default_rng(0).random((args.batch, 3, *size), dtype=np.float32))
        timings = measure(detectors, inputs, rounds=args.rounds, warmup=args.warmup)
        rows: list[dict[str, Any]] = []
        for name, file, d, x, t in zip(args.models, files, detectors, inputs, timings):
            rows.append({
                "model": name,
                "input": list(x.shape),
                "ms": round(t.median, 3),
                "spread_ms": round(t.spread, 3),
                "ratio": round(t.ratio, 4),
                "images_per_second": round(args.batch / t.median * 1e3, 1),
                "megabytes": round(file.stat().st_size / 1e6, 2),
                "nodes": _nodes(file),
                "provider": d.provider,
            })  # fmt: skip
    _print(rows)
    threads = args.threads or "default"
    print(
        f"{args.runtime}, {detectors[0].provider}, {threads} threads, {os.cpu_count()} cores, {args.rounds} interleaved "
        f"rounds; ms: median and half the interquartile range; ratio: median over rounds, relative to the first model."
    )
    if args.save_json:
        report = {"rows": rows, "threads": args.threads, "rounds": args.rounds, "runtime": args.runtime}
        write_text(args.save_json, json.dumps(report, indent=2) + "\n")
    return 0


def _onnx(model: str, index: int, args: argparse.Namespace, folder: Path) -> Path:
    """Return the ONNX file of a model that the user named; checkpoints and YAMLs are exported into `folder`."""
    if model.lower().endswith(".onnx"):
        return Path(model)
    os.environ.setdefault("YOLO_OFFLINE", "1")
    from ..export.onnx import export

    target = folder / f"{index}.onnx"
    export(
        model,
        imgsz=args.imgsz or 640,
        dynamic=args.batch > 1,
        output=target,
        log=lambda line: print(line) if line.startswith("image size") else None,
    )
    return target


def _nodes(file: Path) -> int:
    import onnx

    return len(onnx.load(str(file), load_external_data=False).graph.node)


def _print(rows: list[dict[str, Any]]) -> None:
    width = max(len(r["model"]) for r in rows)
    print(
        f"{'model':<{width}}  {'input':>15}  {'ms':>8} {'+-':>6}  {'ratio':>6}  {'img/s':>7}  {'MB':>7}  {'nodes':>5}"
    )
    for r in rows:
        print(
            f"{r['model']:<{width}}  {'x'.join(map(str, r['input'])):>15}  {r['ms']:>8.2f} {r['spread_ms']:>6.2f}  "
            f"{r['ratio']:>6.3f}  {r['images_per_second']:>7.1f}  {r['megabytes']:>7.2f}  {r['nodes']:>5}"
        )
