"""Which module computes what in which runtime: every module in a small detector, exported and proved by the product itself.

    python tools/deploy_matrix.py                                   # all modules, every format that is installed here
    python tools/deploy_matrix.py --modules SE ECA --formats onnx openvino --half
    python tools/deploy_matrix.py --docs                            # only write the tables of docs/deployment*.md again

One line is kept for each module, format and precision, in ``yolo_attn/export/deployment.csv``; lines of other modules and
formats stay, so that the table can be made in parts, by interpreters with different runtimes, and goes on after an
interruption with ``--missing``. `yolo-attn list --deploy` and `yolo-attn export` read it.

The detector has two convolutions, the module at 32 channels and two heads. Its weights are moved away from their start:
fresh gates are constant, and hide a runtime that computes them wrongly. Converters and runtimes run in processes of
their own, as in every export, since some of them crash.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploy_docs import write_docs

from yolo_attn.detectors.drawn import drawn_images
from yolo_attn.detectors.opening import open_source
from yolo_attn.detectors.source import Source
from yolo_attn.errors import YoloAttnError
from yolo_attn.export.deployment import COLUMNS, EXACT, PATH, read
from yolo_attn.export.formats.base import check_installed
from yolo_attn.export.formats.table import FORMATS
from yolo_attn.export.one_module import export_module, make_module
from yolo_attn.export.onnx import Asked, export_source
from yolo_attn.export.report import TOLERANCES
from yolo_attn.files import write_text
from yolo_attn.registry import registry
from yolo_attn.runtime.image import blob, letterbox

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


def try_one(source: Source, name: str, format: str, half: bool, folder: Path) -> dict[str, Any]:
    """Export and prove one file, and return what became of it."""
    target = folder / f"m{FORMATS[format].suffix if format in FORMATS else '.onnx'}"
    row: dict[str, Any] = {"precision": "fp16" if half else "fp32", "format": format, "module": name}
    asked = Asked(format=format, imgsz=SIZE, half=half, output=target)
    try:
        found = export_source(source, asked.checked(), log=lambda line: None).report
        row["result"] = "converted"
    except YoloAttnError as exc:
        row["reason"] = reason_of(str(exc), folder)
        row["result"] = "refused"
        left = [json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*failed*.json")]
        found = left[0] if left else {}
        if found.get("proof", {}).get("runs"):
            row["result"] = "differs"
        elif found:
            row["result"] = "crashes"
    proof = found.get("proof") or {}
    versions = found.get("versions", {})
    row["version"] = versions.get(FORMATS[format].runtime if format in FORMATS else "onnxruntime", "")
    if proof.get("runs"):
        row["difference"] = f"{proof['largest_difference']:.1e}"
        pairs = [r["detections"] for r in proof["runs"]]
        row.update({k: sum(p[k] for p in pairs) for k in ("compared", "missing", "extra")})
        if proof["passed"]:
            row["result"] = "exact" if proof["largest_difference"] <= EXACT else "close"
        elif half and proof["largest_difference"] <= TOLERANCES["fp16"] and row["missing"] + row["extra"] <= FLIPPED * row["compared"]:
            # of a hundred detections of a random head, one or two lie at a threshold, where fp16 decides otherwise
            row["result"], row["reason"] = "close", ""
    return row


def reason_of(message: str, folder: Path) -> str:
    """Return an error in one line, without the places of this run."""
    text = re.sub(rf"{re.escape(str(folder))}\S*", "FILE", message)
    text = re.sub(r"\S*yolov5_\w+\.yaml: |The file was kept .*$", "", text)
    return " ".join(text.split())[:240]


def write(new: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """Add lines to the table, and write it sorted."""
    rows = {**on_disk(), **new}
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for key in sorted(rows, key=lambda k: (k[0].lower(), k[1], k[2])):
        writer.writerow({c: rows[key].get(c, "") for c in COLUMNS})
    write_text(PATH, out.getvalue())


def on_disk() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the table as it is now; another process may have added to it."""
    read.cache_clear()
    return {(r["module"], r["format"], r["precision"]): dict(r) for r in read()}


def main() -> int:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", help="names or aliases (default: all attention modules)")
    parser.add_argument("--formats", nargs="+", help="formats (default: onnx and all that are installed)")
    parser.add_argument("--half", action="store_true", help="fp16 instead of fp32, where the format has it")
    parser.add_argument("--missing", action="store_true", help="only what the table has no line of yet")
    parser.add_argument("--docs", action="store_true", help="only write the tables of docs/deployment*.md")
    args = parser.parse_args()
    if not args.docs:
        names = [registry.get_entry(n).name for n in args.modules or modules()]
        formats = args.formats or ["onnx", *(f for f in FORMATS if installed(f))]
        formats = [f for f in formats if not args.half or f == "onnx" or FORMATS[f].half]
        make(names, formats, args.half, args.missing)
    write_docs(list(on_disk().values()))
    return 0


def installed(format: str) -> bool:
    """Return whether the packages of a format are here."""
    try:
        check_installed(FORMATS[format])
    except YoloAttnError as exc:
        print(f"left out: {exc}")
        return False
    return True


def make(names: list[str], formats: list[str], half: bool, missing: bool) -> None:
    """Try each module in each format, and keep the table after each module."""
    precision = "fp16" if half else "fp32"
    for name in names:
        known = on_disk() if missing else {}
        todo = [f for f in formats if (name, f, precision) not in known]
        if not todo:
            continue
        begin, rows = time.perf_counter(), {}
        about = graph_of(name)
        with tempfile.TemporaryDirectory() as text:
            source = detector(name, Path(text))
            for format in todo:
                folder = Path(text) / format
                folder.mkdir()
                row = try_one(source, name, format, half, folder)
                rows[(name, format, precision)] = {**row, **about}
                print(f"{name:32}{format:12}{row['result']:10}{row.get('difference', ''):>8}  {row.get('reason', '')[:120]}", flush=True)
        write(rows)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
