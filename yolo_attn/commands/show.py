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
    from .. import config
    from ..parser import install
    from ..tables import grid

    for name in ("imgsz", "nc"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(args, name)}")
    path = config.require(args.cfg)
    d = config.load_ultralytics(args.cfg, path)
    if args.nc:
        d["nc"] = args.nc
    import ultralytics.nn.tasks

    install(strict=True)
    model = _build(ultralytics.nn.tasks, d, verbose=True)
    stride = int(max(model.stride))
    side = -(-args.imgsz // stride) * stride  # the hosts round up as well
    with_attention = _figures(model, side)
    base = _without_attention(d, str(args.cfg))
    rows = [[Path(args.cfg).stem, *with_attention]]
    if base["backbone"] + base["head"] != d["backbone"] + d["head"]:
        without = _figures(_build(ultralytics.nn.tasks, base, verbose=False), side)
        rows.append(["without attention", *without])
        rows.append(["attention adds", *(_difference(a, b) for a, b in zip(with_attention, without))])
    print(grid(["model", "rows", "parameters", f"GFLOPs at {side}"], rows))
    print("GFLOPs of convolutions and matrix products, two operations a multiply-add")
    return 0


def _without_attention(d: dict[str, Any], name: str) -> dict[str, Any]:
    """The model without the kit's attention and without the YAML's own, as far as that keeps the channels."""
    from .. import placement, plugins

    base: dict[str, Any] = placement.remove(d)
    for own in d.get("register") or {}:
        cls = plugins.from_yaml(own, d, name)
        binding = plugins.binding_of(cls) if cls is not None else None
        if binding is not None and not binding.is_block:
            base = placement.remove(base, own)
    return base


def _build(tasks: Any, d: dict[str, Any], *, verbose: bool) -> Any:
    """Build with the model class of the head's task, as the host would."""
    from copy import deepcopy

    from ..initial import MODELS

    cls = getattr(tasks, MODELS.get(tasks.guess_model_task(d), MODELS["detect"]))
    return cls(deepcopy(d), verbose=verbose)


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
