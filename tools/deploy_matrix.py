"""Which module computes what in which runtime: every module in a small detector, exported and proved by the product itself.

    python tools/deploy_matrix.py                                   # all modules, every format that is installed here
    python tools/deploy_matrix.py --modules SE ECA --formats onnx openvino --precision fp16 int8
    python tools/deploy_matrix.py --docs                            # only write table and docs again, without doubled lines

One line is kept for each module, format and precision, in ``yolo_attn/export/deployment.csv``; lines of other modules and
formats stay, so that the table can be made in parts, by interpreters with different runtimes, and goes on after an
interruption with ``--missing``. `yolo-attn list --deploy` and `yolo-attn export` read it.

The detector has two convolutions, the module at 32 channels and two heads. Its weights are moved away from their start:
fresh gates are constant, and hide a runtime that computes them wrongly. An int8 file is calibrated on drawn pictures, and
judged, as the export does, by the detections of its fp32 file: those that it finds with an IoU of at least 0.5. Converters and runtimes run in processes of
their own, as in every export, since some of them crash.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import json
import re
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploy_docs import write_docs
from npu_placement import add_placement, add_placement_int8

from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.detectors.source import Source
from yolo_attn.errors import UsageError, YoloAttnError
from yolo_attn.export.asked import Asked
from yolo_attn.export.deployment import COLUMNS, EXACT, PATH, PRECISIONS, key_of, read, versions_in
from yolo_attn.export.formats.base import Job, check_installed
from yolo_attn.export.formats.int8 import add_int8
from yolo_attn.export.formats.mnn import keep_quiet
from yolo_attn.export.formats.table import FORMATS, named
from yolo_attn.export.one_module import export_module, make_module
from yolo_attn.export.report import TOLERANCES
from yolo_attn.export.single import export_source
from yolo_attn.files import write_text
from yolo_attn.registry import registry
from yolo_attn.runtime.child import Killed
from yolo_attn.runtime.image import blob, letterbox
from yolo_attn.weights.attention import attention_in

SIZE = (64, 96)
YAML = """nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [{before}, 1, {name}, {options}]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc]]
"""
# Two inputs of one shape, for modules that join maps.
JOINED = YAML.replace("  - [{before}", "  - [-1, 1, Conv, [32, 3, 1]]\n  - [[-1, -2]").replace("[[2, 3]", "[[3, 4]")
# Modules that read between positions; positions moved far multiply the last digit of a float, in PyTorch as well.
MOVED, NEAR = ("DeformableLKA", "DeformableLKAAttention"), 0.05
FLIPPED = 0.05
CALIBRATED = 16  # drawn pictures for int8
# Operators of YOLO detectors without attention, and their like element by element: every runtime has them.
COMMON = frozenset(
    "Add AveragePool BatchNormalization Clip Concat Constant Conv Div Exp Flatten GlobalAveragePool GlobalMaxPool Identity "
    "LeakyRelu MatMul MaxPool Mul Neg Pow ReduceMax ReduceMean ReduceSum Relu Reshape Resize Sigmoid Slice Softmax Split "
    "Sqrt Squeeze Sub Tanh Transpose Unsqueeze".split()
)


def modules() -> list[str]:
    """Return the modules that are attention themselves; blocks are made of them."""
    kinds = ("channel", "spatial", "both", "fusion")
    return [n for n in registry.list_modules() if registry.get_entry(n).kind in kinds]


def detector(name: str, folder: Path) -> Source:
    """Build the small detector with one module, with weights, statistics and scores that make detections."""
    torch.manual_seed(0)
    text = JOINED if registry.get_entry(name).kind == "fusion" else YAML
    path = folder / f"yolov5_{name.lower()}.yaml"
    path.write_text(text.format(name=name, options="[]", before="-1"), encoding="utf-8")
    source = open_source(path)
    model = source.model
    attention = model.model[-3]
    with torch.no_grad():
        for p in attention.parameters():
            p += (NEAR if name in MOVED else 0.3) * torch.randn_like(p) if p.dim() else 0.5
        pictures = torch.from_numpy(blob([letterbox(im, SIZE)[0] for im in drawn_images(4)]))
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [m.momentum for m in norms]
        for m in norms:
            m.momentum = None  # the mean over the batches
            m.reset_running_stats()
        model.train()
        model(pictures)
        for m, momentum in zip(norms, kept):
            m.momentum = momentum
        model.eval()
        for convolutions in model.model[-1].cv3:
            convolutions[-1].bias.normal_(-1.5, 0.5)
            convolutions[-1].weight *= 5
    return source


def graph_of(name: str) -> dict[str, Any]:
    """Return what the module's own ONNX graph consists of: nodes, highest rank, operators that not every runtime has."""
    import onnx

    module, inputs = make_module(name, 64)
    graph = export_module(module, [torch.randn(1, 64, 16, 20) for _ in range(inputs)], dynamic=False)
    known = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    ops = Counter(n.op_type for n in graph.graph.node)
    return {
        "nodes": sum(ops.values()),
        "rank": max(len(v.type.tensor_type.shape.dim) for v in (*known.value_info, *known.output)),
        "beyond": " ".join(sorted(ops.keys() - COMMON)),
    }


def try_one(source: Source, name: str, format: str, precision: str, folder: Path) -> list[dict[str, Any]]:
    """Export and prove one file, and return what became of it; of int8, also what became of the file that it is made from."""
    target = folder / f"m{FORMATS[format].suffix if format in FORMATS else '.onnx'}"
    row: dict[str, Any] = {"precision": precision, "format": format, "module": name, "measured": now()}
    pictures = drawn_images(CALIBRATED) if precision == "int8" else None
    asked = Asked(format=format, imgsz=SIZE, half=half_of(format, precision), int8=pictures, output=target, force=True)
    problem = ""
    try:
        found = export_source(source, asked.checked(), log=lambda line: None).report
    except Killed:
        raise  # for want of memory, say: no line of the table
    except YoloAttnError as exc:
        problem = reason_of(str(exc), folder)
        left = [p for p in folder.glob("*.json") if "failed" in p.name] or [*folder.glob("*.json")]
        found = json.loads(left[0].read_text(encoding="utf-8")) if left else {}
    if format in FORMATS and FORMATS[format].chips:
        add_placement(found, list(attention_in(source.model)), folder)
    if precision != "int8":
        return [judged(row, found, problem)]
    base = {**row, "precision": found.get("precision", "fp32")}
    proved = bool(found.get("proof", {}).get("passed"))
    rows = [judged(base, found, "" if proved else problem)] if found else []
    if format in FORMATS and not proved and rows and rows[0]["result"] == "close":
        # the export makes no int8 file beside one that differs; what of a random head lies at a threshold is no difference
        job, file = Job(source, SIZE, pictures=pictures), Path(found["path"])
        try:
            add_int8(FORMATS[format], job, file, found, None, log=lambda line: None)
        except Killed:
            raise
        except YoloAttnError as exc:
            problem = reason_of(str(exc), folder)
        if FORMATS[format].chips:
            add_placement_int8(found)
    return [*rows, judged_int8(row, found, problem)]


def half_of(format: str, precision: str) -> bool:
    """Whether fp16 has to be asked for: some formats have nothing else."""
    return precision == "fp16" and (format == "onnx" or FORMATS[format].half)


def now() -> str:
    """Return the time of a line."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def judged(row: dict[str, Any], found: dict[str, Any], problem: str) -> dict[str, Any]:
    """Return a line with what a report says of its file; `problem` is the export's error, without places."""
    row = {**row, "version": versions_in(found.get("versions", {}), row), "on_cpu": listed(found.get("on_cpu", ""))}
    proof = found.get("proof") or {}
    if problem:
        row["result"], row["reason"] = "differs" if proof.get("runs") else "crashes" if found else "refused", problem
    else:
        row["result"] = "converted"
    if proof.get("runs"):
        row["difference"] = f"{proof['largest_difference']:.1e}"
        pairs = [r["detections"] for r in proof["runs"]]
        row.update({k: sum(p[k] for p in pairs) for k in ("compared", "missing", "extra")})
        near = proof["largest_difference"] <= TOLERANCES["fp16"] and row["missing"] + row["extra"] <= FLIPPED * row["compared"]
        if proof["passed"]:
            row["result"] = "exact" if proof["largest_difference"] <= EXACT else "close"
        elif row["precision"] == "fp16" and near:
            # of a hundred detections of a random head, one or two lie at a threshold, where fp16 decides otherwise
            row["result"], row["reason"] = "close", ""
    return row


def judged_int8(row: dict[str, Any], found: dict[str, Any], problem: str) -> dict[str, Any]:
    """Return a line with what a report says of the int8 file beside its own."""
    row = {**row, "version": versions_in(found.get("versions", {}), row)}
    near = found.get("int8")
    if near is None:
        return {**row, "result": "refused", "reason": problem}
    row["on_cpu"] = listed(near.get("on_cpu", ""))
    row.update(compared=near["found"], missing=near["found"] - near["same_iou_0.5"], extra=near["extra"])
    if row["missing"] + row["extra"] <= FLIPPED * row["compared"]:
        return {**row, "result": "close"}
    most = ", ".join(f"{part['layer']} {part['error']:.1%}" for part in near.get("layers", [])[:3])
    told = f"{row['missing']} of {row['compared']} detections are missing, {row['extra']} are new"
    return {**row, "result": "loses", "reason": f"{told}{'; what loses most: ' if most else ''}{most}"}


def listed(operators: Any) -> str:
    """Return operators in one text."""
    return operators if isinstance(operators, str) else " ".join(map(str, operators))


def reason_of(message: str, folder: Path) -> str:
    """Return an error in one line, without the places of this run."""
    text = re.sub(rf"{re.escape(str(folder))}\S*", "FILE", message)
    text = re.sub(r"FILE does not match \S+:? |\S*yolov5_\w+\.yaml: |The file was kept .*$", "", text)
    text = re.sub(r"\.\.+", ".", " ".join(text.split()))[:240]
    return text[:1].upper() + text[1:]


def write(new: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """Add lines to the table, and write it sorted."""
    rows = {**on_disk(), **new}
    # nodes, rank and operators are of the module's own ONNX graph, in whichever line: as it was measured last
    last = {r["module"]: r for r in sorted(rows.values(), key=lambda r: str(r.get("measured", "")))}
    for row in rows.values():
        row.update({c: last[row["module"]].get(c, "") for c in ("nodes", "rank", "beyond")})
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for key in sorted(rows, key=lambda k: (k[0].lower(), k[1], k[2])):
        writer.writerow({c: rows[key].get(c, "") for c in COLUMNS})
    write_text(PATH, out.getvalue())


def on_disk() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the table as it is now; another process may have added to it."""
    read.cache_clear()
    return {key_of(r): dict(r) for r in (read() if PATH.is_file() else ())}


def main() -> int:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", help="names or aliases (default: all attention modules)")
    parser.add_argument("--formats", nargs="+", help="formats (default: onnx and all that are installed)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, help="where the format has it (default: all)")
    parser.add_argument("--missing", action="store_true", help="only what the table has no line of yet")
    parser.add_argument("--docs", action="store_true", help="only write the table and docs/deployment*.md again, without doubled lines")
    args = parser.parse_args()
    try:
        if not args.docs:
            names = list(dict.fromkeys(registry.get_entry(n).name for n in args.modules or modules()))
            formats = wanted(args.formats) if args.formats else ["onnx", *(f for f in FORMATS if can_be_tried(f))]
            make(names, formats, args.precision or list(PRECISIONS), args.missing)
        write({})
        write_docs(list(on_disk().values()))
    except YoloAttnError as exc:
        print(f"deploy_matrix.py: {exc}", file=sys.stderr)
        return 1
    return 0


def wanted(texts: list[str]) -> list[str]:
    """Return the formats that were named, each once.

    Raises:
        YoloAttnError: One has no place in the table, or is not installed here: it would be written down as refused.
    """
    formats = list(dict.fromkeys(map(named, texts)))
    for format in formats:
        if format != "onnx" and format not in FORMATS:
            raise UsageError(f"the table has no format '{format}', only onnx, {', '.join(FORMATS)}")
        if format in FORMATS:
            check_installed(FORMATS[format])
    return formats


def precisions_of(format: str) -> list[str]:
    """Return the precisions that a format has."""
    if format == "onnx":
        return list(PRECISIONS)
    kind = FORMATS[format]
    return [kind.precision, *["fp16"][: kind.half], *["int8"][: kind.int8]]


def can_be_tried(format: str) -> bool:
    """Return whether the packages of a format are here."""
    try:
        check_installed(FORMATS[format])
    except YoloAttnError as exc:
        print(f"left out: {exc}")
        return False
    return True


def preload(formats: list[str]) -> None:
    """Import what the converters need, once: each conversion is a fork of this process."""
    keep_quiet()
    for package in ["ultralytics.engine.exporter", *(n.module for f in formats if f in FORMATS for n in FORMATS[f].needs)]:
        with contextlib.suppress(Exception):  # the conversion tells it
            importlib.import_module(package)


def make(names: list[str], formats: list[str], precisions: list[str], missing: bool) -> None:
    """Try each module in each format and precision, and keep the table after each module."""
    preload(formats)
    for name in names:
        known = on_disk() if missing else {}
        todo = [(f, p) for f in formats for p in reversed(precisions_of(f)) if p in precisions and (name, f, p) not in known]
        if not todo:
            continue
        begin, rows = time.perf_counter(), {}
        about = graph_of(name)
        with tempfile.TemporaryDirectory() as text:
            source = detector(name, Path(text))
            for format, precision in todo:
                if (name, format, precision) in rows:  # with int8
                    continue
                folder = Path(text) / f"{format} {precision}"
                folder.mkdir()
                for row in try_one(source, name, format, precision, folder):
                    rows[key_of(row)] = {**row, **about}
                    told = f"{row['result']:10}{row.get('difference', ''):>8}  {row.get('reason', '')[:120]}"
                    print(f"{name:32}{format:12}{row['precision']:6}{told}", flush=True)
        write(rows)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
