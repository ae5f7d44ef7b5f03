"""`yolo-attn show`: the built table of a model YAML, beside the same model without attention."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("cfg", metavar="YAML", help="model YAML, by name or path, e.g. yolov5s_se.yaml")
    parser.add_argument(
        "--imgsz", "--img", type=int, default=640, metavar="N", help="side in pixels for the GFLOPs (default 640)"
    )
    parser.add_argument("--nc", type=int, metavar="N", help="number of classes (default: the YAML's)")


def run(args: argparse.Namespace) -> int:
    """Build both, print table and figures."""
    os.environ.setdefault("YOLO_OFFLINE", "true")  # nothing here needs a network
    from ..hook.install import install
    from ..model_yaml import config, placement
    from ..weights.attention import attention_used
    from ._tables import grid

    for name in ("imgsz", "nc"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(args, name)}")
    path = config.require(args.cfg)
    print(f"{args.cfg}: {path}", flush=True)  # building takes seconds; this much is known now
    d = config.load_ultralytics(args.cfg, path)
    if args.nc:
        d["nc"] = args.nc
    import ultralytics.nn.tasks  # noqa: F401 # what install looks for

    install(strict=True)
    model = _build(d, str(args.cfg), verbose=True)
    stride = int(max(model.stride))
    side = -(-args.imgsz // stride) * stride  # the hosts round up as well
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
    print(grid(["model", "rows", "parameters", f"GFLOPs at {side}"], rows))
    if stays:
        print(f"attention in blocks that have no form without it stays in both: {', '.join(stays)}")
    print("GFLOPs of convolutions and matrix products, two operations a multiply-add")
    return 0


def _build(d: dict[str, Any], file: str, *, verbose: bool) -> Any:
    """Build with the model class that the host itself would take."""
    from copy import deepcopy

    from ..hook.host_errors import told_by_row
    from ..weights.start_from import model_class

    with told_by_row(file):
        return model_class(d, file)[0](deepcopy(d), verbose=verbose)


def _figures(model: Any, imgsz: int) -> list[str]:
    """Rows, parameters and GFLOPs, the last counted in one forward pass at the full size.

    Convolutions and matrix products alone; the hosts' counters add normalization and more, and say a little more.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, model.yaml.get("channels", 3), imgsz, imgsz))
    parameters = sum(p.numel() for p in model.parameters())
    return [str(len(model.model)), f"{parameters:,}", f"{counter.get_total_flops() / 1e9:.3f}"]


def _difference(a: str, b: str) -> str:
    x, y = (float(v.replace(",", "")) for v in (a, b))
    return f"{x - y:+,.3f}" if "." in a else f"{int(x - y):+,}"
