"""`yolo-attn show`: build a model YAML and compare it with the same model without attention."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..hook.host_errors import told_by_row
from ..system.console import talk_aside
from ._tables import grid


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("cfg", metavar="YAML", help="model YAML, by name or path, e.g. yolov5s_se.yaml")
    parser.add_argument(
        "--imgsz", "--img", type=int, default=640, metavar="N", help="image size in pixels for the GFLOPs (default 640)"
    )
    parser.add_argument("--nc", type=int, metavar="N", help="number of classes (default: the YAML's)")
    parser.add_argument("--force", action="store_true", help="build even if the memory is estimated to be too small")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON, without the table of layers")


def run(args: argparse.Namespace) -> int:
    """Build both models and print the host's table of layers and a comparison."""
    for name in ("imgsz", "nc"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(args, name)}")
    with talk_aside(args.json):
        path, side, rows, stays = _compare(args)
    if args.json:
        numbers = [
            {"model": m, "rows": int(r), "parameters": int(p.replace(",", "")), "gflops": float(g.replace(",", ""))}
            for m, r, p, g in rows
        ]
        print(json.dumps({"file": path, "imgsz": side, "models": numbers, "stays": stays}, indent=1))
        return 0
    print(grid(["model", "rows", "parameters", f"GFLOPs at {side}"], rows))
    if stays:
        print(f"blocks that have no variant without attention stay in both: {', '.join(stays)}")
    print("GFLOPs: convolutions and matrix products only; a multiply-add counts as two operations")
    return 0


def _compare(args: argparse.Namespace) -> tuple[str, int, list[list[str]], dict[str, int]]:
    """Return the file, the image size, the lines of the comparison, and the attention that stays in both."""
    os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing here needs a network
    from ..hook.install import install
    from ..hook.memory_need import refuse_too_large
    from ..model_yaml import find, load, placement
    from ..weights.attention import attention_used

    path = find.require(args.cfg)
    if not args.json:
        print(f"{args.cfg}: {path}", flush=True)  # building takes seconds
    d = load.load_ultralytics(args.cfg, path)
    if args.nc:
        d["nc"] = args.nc
    import ultralytics.nn.tasks  # the module that install patches

    install(strict=True)
    refuse_too_large(d, str(args.cfg), ultralytics.nn.tasks, force=args.force)
    model = _build(d, str(args.cfg), verbose=not args.json)
    stride = int(max(model.stride))
    side = -(-args.imgsz // stride) * stride  # the hosts round up as well
    with told_by_row(str(args.cfg)):
        with_attention = _figures(model, side)
    base = placement.remove(d, all=True)
    rows = [[Path(args.cfg).stem, *with_attention]]
    stays: dict[str, int] = {}
    if base["backbone"] + base["head"] != d["backbone"] + d["head"]:
        bare = _build(base, str(args.cfg), verbose=False)
        without = _figures(bare, side)
        stays = attention_used(bare, joins=False)
        rows.append(["without its rows" if stays else "without attention", *without])
        rows.append(
            ["they add" if stays else "attention adds", *(_difference(a, b) for a, b in zip(with_attention, without))]
        )
    return str(path), side, rows, stays


def _build(d: dict[str, Any], file: str, *, verbose: bool) -> Any:
    """Build with the model class that the host would choose."""
    from copy import deepcopy

    from ..weights.start_from import model_class

    with told_by_row(file):
        return model_class(d, file)[0](deepcopy(d), verbose=verbose)


def _figures(model: Any, imgsz: int) -> list[str]:
    """Count rows, parameters and, in one forward pass at full size, GFLOPs.

    Only convolutions and matrix products are counted; the hosts' counters add normalization and other layers, and so
    give slightly higher numbers.
    """
    import torch

    from ..hook.flops import count

    operations = count(model.eval(), torch.zeros(1, model.yaml.get("channels", 3), imgsz, imgsz))
    parameters = sum(p.numel() for p in model.parameters())
    return [str(len(model.model)), f"{parameters:,}", f"{operations / 1e9:.3f}"]


def _difference(a: str, b: str) -> str:
    x, y = (float(v.replace(",", "")) for v in (a, b))
    return f"{x - y:+,.3f}" if "." in a else f"{int(x - y):+,}"
