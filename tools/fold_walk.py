"""Fold every channel module at every placement of every family, and check what comes out.

    python tools/fold_walk.py                                # an hour on two cores; each line is one detector
    python tools/fold_walk.py --families yolov8n,yolo11n --modules SEAttention,ECA --nodes
    python tools/fold_walk.py --classic DIR                  # the rows of a YOLOv5 checkout's yolov5n.yaml

Each detector gets attention whose gate is a constant. Its row must be folded, with outputs within 1e-5, as many ONNX nodes
as the plain detector (`--nodes`), and weights that load into the plain detector; or stay with a reason that names the layer
in the way. Then one of the gates is made to move, and must stay. The exit code is 1 if anything else happens.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

FAMILIES = ["yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo13n", "yolo26n", "yolov8n-seg", "yolo11n-pose",
            "yolo11n-obb", "yolov8n-cls", "rtdetr-resnet50"]  # fmt: skip
PLACEMENTS = ["backbone", "neck", "before-detect", "inside", "inside-neck", "after-SPPF"]
IMAGES, SIDE = 12, 64


def settled(network: Any) -> Any:
    """Fit batch norms to images, and vary them: with fresh ones activations fade to a constant, which no gate moves on."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for m in norms:
        m.momentum = None  # cumulative average
        m.reset_running_stats()
        m.weight.data.uniform_(0.8, 1.2)
        m.bias.data.normal_(0, 0.1)
    with torch.no_grad():
        network.train()(pictures(256))
    for m in norms:
        m.momentum = 0.03
    return network.eval()


def still(module: nn.Module) -> None:
    """Make a gate constant: weights 0, so that nothing of the image arrives, and biases at random, as far as there are any."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.normal_(0, 0.7) if name.endswith("bias") else p.zero_()


def moving(module: nn.Module) -> bool:
    """Make a gate depend on the image; False where a module has no weights to do it."""
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, 3.0)
    return any(True for _ in module.parameters())


def recorded(network: Any, images: torch.Tensor) -> Any:
    """Run images of different brightness and contrast, and return the gates."""
    from yolo_attn.inside.recording import record_gates

    with torch.no_grad(), record_gates(network) as gates:
        for image in images:
            network(image[None])
    return gates


def pictures(side: int, channels: int = 3) -> torch.Tensor:
    """Images of different brightness and contrast, (N, C, H, W)."""
    torch.manual_seed(1)
    return torch.rand(IMAGES, channels, side, side) * torch.linspace(0.05, 2, IMAGES).reshape(-1, 1, 1, 1)


def place(plain: Any, module: str, where: str) -> Any:
    """Attach a module, as its paper starts it."""
    import yolo_attn

    if where == "after-SPPF":
        return yolo_attn.attach(plain, module, after="SPPF", start=None)
    return yolo_attn.attach(plain, module, where=where, start=None)


def walk(plain: Any, name: str, module: str, where: str, nodes: int | None) -> tuple[str, bool]:
    """Return what became of one detector, and whether that is right."""
    import yolo_attn
    from yolo_attn.detectors.source import Source
    from yolo_attn.errors import ConfigError, UsageError
    from yolo_attn.inside.fold import constant_gates
    from yolo_attn.inside.fold_constant import outputs
    from yolo_attn.inside.fold_network import AGREE, difference, fold_network
    from yolo_attn.inside.fold_rows import rows_of
    from yolo_attn.weights.attention import attention_in

    network = network_of(plain)
    side = 256 if "RTDETR" in type(network.model[-1]).__name__ else SIDE
    try:
        made = place(plain, module, where)
    except yolo_attn.YoloAttnError as exc:
        return f"no such placement ({str(exc)[:90]})", isinstance(exc, (UsageError, ConfigError))
    inner = network_of(made)
    inner.eval()
    for path in attention_in(inner):
        still(inner.get_submodule(path))
    images = pictures(side)
    gates = recorded(inner, images)
    rows = rows_of(inner, inner.yaml)
    constants, _, why = constant_gates(gates, rows, 1e-4)
    folded = fold_network(inner, constants, handle=None if made is inner else made)
    stays = {**folded.kept, **why}
    text = f"{len(folded.rows)} folded"
    good = all(stays.get(r.index) for r in rows if r not in folded.rows)
    if folded.network is not None:
        new = network_of(folded.network)
        pairs = zip(outputs(inner.double(), images[:2].double()), outputs(copy.deepcopy(new).double(), images[:2].double()))
        inner.float()
        worst = max(difference([a], [b]) for a, b in pairs)
        text += f", outputs {worst:.1e}"
        good = good and worst <= AGREE
        if not attention_in(new):
            report = yolo_attn.transfer(new, copy.deepcopy(network))
            text += f", {report.fraction:.0%} transferred"
            good = good and report.fraction == 1.0
            if nodes is not None and made is not inner:
                count = counted(Source(Path(name), "ultralytics", new, made.task, (side, side), folded.network))
                text += f", {count} nodes"
                good = good and count == nodes
    if stays:
        reasons = Counter(w.partition(") ")[2] or w for w in stays.values())
        text += "; stays: " + "; ".join(f"{n} x {w[:90]}" for w, n in reasons.items())
    if constants:
        path = next(iter(constants))
        if moving(inner.get_submodule(path)):
            again, _, _ = constant_gates(recorded(inner, images), rows, 1e-4)
            if path in again and spread(inner, path, images) > 1e-3:  # less where every gate is saturated
                text, good = text + f"; {path} MOVES AND IS CALLED CONSTANT", False
    return text, good


def spread(network: Any, path: str, images: torch.Tensor) -> float:
    """How far the gate of a layer moves over images: output over input, without the kit's recording."""
    gates: list[torch.Tensor] = []

    def hook(module: Any, given: Any, y: torch.Tensor) -> None:
        x = given[0]
        gates.append((x * y).sum((2, 3)) / (x * x).sum((2, 3)).clamp(min=1e-12))

    handle = network.get_submodule(path).register_forward_hook(hook)
    with torch.no_grad():
        for image in images:
            network(image[None])
    handle.remove()
    found = torch.cat(gates)
    return float((found - found.mean(0)).abs().max())


def network_of(detector: Any) -> Any:
    """The network of an ultralytics wrapper, or the network itself."""
    return detector if isinstance(detector.model, nn.Sequential) else detector.model


def counted(source: Any) -> int:
    """The nodes of a detector's ONNX graph."""
    from yolo_attn.export.onnx import count_nodes

    return count_nodes(source)


def main() -> int:
    """Walk; return the exit code."""
    import yolo_attn
    from yolo_attn.detectors.source import Source
    from yolo_attn.registry import registry

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--modules", default=",".join(registry.list_modules(kind="channel")))
    parser.add_argument("--places", default=",".join(PLACEMENTS))
    parser.add_argument("--nodes", action="store_true", help="also export, and compare the number of nodes")
    parser.add_argument("--classic", metavar="DIR", help="a YOLOv5 checkout, in place of the families; 'yolov5' for the package")
    args = parser.parse_args()
    wrong = 0
    for name in ["yolov5n"] if args.classic else args.families.split(","):
        torch.manual_seed(0)
        plain, nodes = (classic(args.classic), None) if args.classic else (opened(name), None)
        if plain is None:
            print(f"{name}: not in this host", flush=True)
            continue
        if args.nodes and not args.classic:
            nodes = counted(Source(Path(name), "ultralytics", plain.model, plain.task, (SIDE, SIDE), plain))
            print(f"{name}: {nodes} nodes", flush=True)
        for where in args.places.split(","):
            for module in args.modules.split(","):
                began = time.perf_counter()
                try:
                    text, good = walk(plain, name, module, where, nodes)
                except yolo_attn.YoloAttnError as exc:
                    text, good = f"{type(exc).__name__}: {exc}", False
                wrong += not good
                print(f"{'' if good else 'WRONG '}{name} {where} {module}: {text} ({time.perf_counter() - began:.0f} s)", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


def opened(name: str) -> Any:
    """A detector of the ultralytics host, or None where it has no such YAML."""
    from ultralytics import RTDETR, YOLO

    try:
        handle = (RTDETR if "rtdetr" in name else YOLO)(f"{name}.yaml")
    except (FileNotFoundError, ValueError):
        return None
    settled(handle.model)
    return handle


def classic(folder: str) -> Any:
    """A detector of classic YOLOv5."""
    import importlib

    if folder != "yolov5":
        sys.path.insert(0, folder)
    yolo = importlib.import_module("yolov5.models.yolo" if folder == "yolov5" else "models.yolo")
    return settled(yolo.Model(str(Path(yolo.__file__).parent / "yolov5n.yaml")))


if __name__ == "__main__":
    raise SystemExit(main())
