"""`yolo-attn bench plain.pt attention.pt --format onnx,openvino`: compare latency and size of detectors in one run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ExportError, UsageError
from ..files import write_text
from ..system.drafts import scratch
from ._options import add_runtime, check_place


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "models", nargs="+", help="exported files or folders; checkpoints and model YAMLs are exported first"
    )
    parser.add_argument(
        "--format",
        action="append",
        metavar="NAME",
        help="what checkpoints and YAMLs are exported to (default onnx); several with commas, or repeated",
    )
    parser.add_argument(
        "--imgsz",
        nargs="+",
        type=int,
        metavar="N",
        help="image size in pixels: side, or height and width (default 640)",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per run (default 1)")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="timed runs of each model (default 50)")
    parser.add_argument("--warmup", type=int, default=5, metavar="N", help="runs before timing begins (default 5)")
    add_runtime(parser)
    parser.add_argument("--host", metavar="DIR", help="YOLOv5 checkout that classic checkpoints need")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--save-json", metavar="FILE", help="also write the results as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure all models in turns and print one table; ratios are relative to the first model in the same runtime."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of one runtime that wait actively slow the next
    import numpy as np

    from ..runtime.bench import measure
    from ..runtime.image import round_up
    from ..runtime.session import Detector

    for name, least in (("batch", 1), ("rounds", 1), ("warmup", 0), ("threads", 0)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if args.imgsz and (len(args.imgsz) > 2 or min(args.imgsz) < 1):
        raise UsageError(f"--imgsz takes one side, or height and width, in pixels, got {args.imgsz}")
    check_place(args.save_json)
    if args.format and all(_is_file(m) for m in args.models):
        raise UsageError(f"--format is what checkpoints and YAMLs are exported to, and {args.models[0]} is a file that runs as it is")
    if args.host and args.host != "ultralytics":
        from ..detectors.classic import use_host

        use_host(args.host)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch())
        files = [pair for i, m in enumerate(args.models) for pair in _files(m, i, args, folder)]
        detectors, inputs = [], []
        for _, file in files:
            d = Detector(
                file, runtime=args.runtime, threads=args.threads, provider=args.provider, spin=False, unproved=args.unproved
            )
            for note in d.notes:
                print(f"note: {note}", file=sys.stderr)
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
        first = {d.runtime: i for i, d in reversed(list(enumerate(detectors)))}
        references = [first[d.runtime] for d in detectors]
        timings = measure(detectors, inputs, rounds=args.rounds, warmup=args.warmup, references=references)
        attention = [d.attention for d in detectors]
        rows: list[dict[str, Any]] = []
        for i, ((name, file), d, x, t) in enumerate(zip(files, detectors, inputs, timings)):
            costs = bool(attention[i]) and attention[references[i]] == {}
            rows.append({
                "model": name,
                "runtime": d.runtime,
                "version": d.version,
                "input": list(x.shape),
                "ms": round(t.median, 3),
                "spread_ms": round(t.spread, 3),
                "ratio": round(t.ratio, 4),
                "ratio_95": [round(v, 4) for v in t.interval],
                "attention": attention[i],
                "attention_share": round(t.share, 4) if costs else None,
                "images_per_second": round(args.batch / t.median * 1e3, 1),
                "megabytes": round(_bytes(file) / 1e6, 2),
                "nodes": _nodes(file),
                "provider": d.provider,
            })  # fmt: skip
    rows.sort(key=lambda r: first[r["runtime"]])
    report = {"rows": rows, "threads": args.threads, "rounds": args.rounds, "runtime": args.runtime}
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(rows)
        threads = args.threads or "default"
        versions = ", ".join(dict.fromkeys(f"{r['runtime']} {r['version']} ({r['provider']})" for r in rows))
        print(
            f"{versions}, {threads} threads, {os.cpu_count()} cores, {args.rounds} interleaved rounds; ms: median and "
            f"half the interquartile range; ratio: median over rounds, relative to the first model in the same runtime, "
            f"with its 95 % interval; attn: what attention takes of a model's time, where that first model has none."
        )
    if args.save_json:
        write_text(args.save_json, json.dumps(report, indent=2) + "\n")
    return 0


def _files(model: str, index: int, args: argparse.Namespace, folder: Path) -> list[tuple[str, Path]]:
    """Return name and path of the files of a model that the user named; checkpoints and YAMLs are exported to `folder`."""
    if _is_file(model):
        return [(model, Path(model))]
    from ..runtime.engines.table import ELSEWHERE

    os.environ.setdefault("YOLO_OFFLINE", "1")
    from ..export.asked import Asked
    from ..export.formats.table import FORMATS, NAMES, suffix_of
    from ..export.several import export_several, formats_of

    formats = formats_of(args.format or ["onnx"])
    for name in formats:
        if suffix_of(name) in ELSEWHERE:
            runs = ", ".join(n for n in NAMES if suffix_of(n) not in ELSEWHERE)
            raise UsageError(f"--format {name}: nothing here runs what it writes, choose from {runs}")
    place = folder / str(index)
    place.mkdir()
    asked = Asked(imgsz=args.imgsz or 640, output=place)
    fixed = [n for n in formats if n in FORMATS and not FORMATS[n].dynamic]  # some run a batch one by one
    tell = sys.stderr if args.json else sys.stdout
    done = []
    for dynamic, names in ((True, [n for n in formats if n not in fixed]), (False, fixed)) if args.batch > 1 else ((False, formats),):
        done += export_several(
            model,
            names,
            replace(asked, dynamic=dynamic),
            log=lambda line: print(line, file=tell) if line.startswith("image size") else None,
        ) if names else []  # fmt: skip
    for d in done:
        if d.result is None:
            raise ExportError(d.problem)
    return [(model, d.result.path) for d in done if d.result is not None]


def _is_file(model: str) -> bool:
    """Whether a runtime opens it, by its name."""
    from ..runtime.engines.table import kind_of

    return kind_of(Path(model)) not in ("", ".pt", ".bundle")


def _nodes(file: Path) -> int | None:
    if file.suffix.lower() != ".onnx":
        return None
    try:
        import onnx
    except ImportError:  # a board that runs files has onnxruntime alone
        return None
    return len(onnx.load(str(file), load_external_data=False).graph.node)


def _bytes(file: Path) -> int:
    return sum(p.stat().st_size for p in (file.rglob("*") if file.is_dir() else [file]) if p.is_file())


def _print(rows: list[dict[str, Any]]) -> None:
    width = max(len(r["model"]) for r in [{"model": "model"}, *rows])
    wide = max(len(r["runtime"]) for r in [{"runtime": "runtime"}, *rows])
    print(
        f"{'runtime':<{wide}}  {'model':<{width}}  {'input':>15}  {'ms':>8} {'+-':>6}  {'ratio':>6} {'95 %':>13}  {'attn':>6}  "
        f"{'img/s':>7}  {'MB':>7}  {'nodes':>5}"
    )
    for r in rows:
        low, high = r["ratio_95"]
        sure = "" if low == high else f"{low:.3f}-{high:.3f}"
        share = "" if r["attention_share"] is None else f"{100 * r['attention_share']:.1f} %"
        print(
            f"{r['runtime']:<{wide}}  {r['model']:<{width}}  {'x'.join(map(str, r['input'])):>15}  {r['ms']:>8.2f} "
            f"{r['spread_ms']:>6.2f}  {r['ratio']:>6.3f} {sure:>13}  {share:>6}  {r['images_per_second']:>7.1f}  "
            f"{r['megabytes']:>7.2f}  {r['nodes'] or '':>5}"
        )
