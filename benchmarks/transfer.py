"""How fast a detector with attention reaches its base detector: the host's loading of weights and the kit's.

A base detector is trained on the embedded data set. SE rows are inserted after the blocks of its backbone, and its
weights are loaded, once by the host's rule (same name, same shape) and once by `yolo_attn.transfer` with identity
start; then both are trained. Prints mAP50 before training, after each epoch, and the epoch that reaches the base's.

    python benchmarks/transfer.py                      # three seeds, about ten minutes on two idle cores
    python benchmarks/transfer.py --seeds 1 --epochs 2 --base-epochs 6
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")

import yolo_attn
from yolo_attn.training.shapes import make as make_shapes

RECIPE = {
    "imgsz": 96, "batch": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 1, "mosaic": 0.0,
    "close_mosaic": 0, "workers": 0, "plots": False, "verbose": False, "exist_ok": True, "amp": False,
}  # fmt: skip
# Fine-tuning: a quarter of the learning rate, and no warm-up of biases at the host's 0.1, which would undo weights.
ONWARDS = {"lr0": 0.0005, "warmup_bias_lr": 0.0}
MAP50 = "metrics/mAP50(B)"


def main() -> None:
    """Parse options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each training with attention")
    parser.add_argument("--base-epochs", type=int, default=20)
    parser.add_argument("--base", default="yolov5n.yaml")
    parser.add_argument("--cfg", default="yolov5n_se.yaml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="also write the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="yolo_attn_transfer_") as folder:
        results = compare(options, Path(folder))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train the base once, then with both ways of loading for each seed."""
    from ultralytics import YOLO

    shapes = make_shapes()
    settings = {**RECIPE, "data": str(shapes), "device": options.device, "project": str(folder)}
    base = YOLO(options.base)
    base.train(epochs=options.base_epochs, seed=0, name="base", **settings)
    best = folder / "base" / "weights" / "best.pt"
    goal = validate(YOLO(str(best)), settings)
    print(f"\n{options.base}: mAP50 {goal:.3f} after {options.base_epochs} epochs\n", flush=True)
    results: dict[str, Any] = {"base": goal, "stock": [], "transfer": []}
    for seed in range(options.seeds):
        for way in ("stock", "transfer"):
            model = load(way, best, options.cfg, folder, seed)
            curve = [validate(model, settings)]
            model.add_callback("on_fit_epoch_end", lambda t, c=curve: c.append(float(t.metrics.get(MAP50, 0.0))))
            model.train(epochs=options.epochs, seed=seed, name=f"{way}{seed}", **{**settings, **ONWARDS})
            curve = curve[: options.epochs + 1]  # the host validates best.pt once more at the end
            results[way].append(curve)
            print(f"seed {seed}  {way:<8}  " + " ".join(f"{x:.3f}" for x in curve), flush=True)
    print(f"\n{'loading':<10}{'before':>8}{'last':>8}   epochs to {goal:.3f} - 0.01")
    for way in ("stock", "transfer"):
        reached = [next((e for e, x in enumerate(c) if x >= goal - 0.01), None) for c in results[way]]
        words = ", ".join("never" if e is None else str(e) for e in reached)
        before, last = mean(c[0] for c in results[way]), mean(c[-1] for c in results[way])
        print(f"{way:<10}{before:>8.3f}{last:>8.3f}   {words}")
    return results


def load(way: str, weights: Path, cfg: str, folder: Path, seed: int) -> Any:
    """Return the model with attention, with its weights loaded one way or the other."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(seed)
    if way == "transfer":
        own = folder / f"yolov5{Path(cfg).stem[6]}_identity.yaml"
        text, _ = yolo_attn.set_start(cfg, "identity")
        own.write_text(text, encoding="utf-8")
        model = YOLO(str(own))
        model.model = nc_of(model, weights)
        yolo_attn.transfer(weights, model)
        return model
    model = YOLO(cfg)
    model.model = nc_of(model, weights)
    yolo_attn.uninstall()  # the host's own rule
    try:
        model.load(str(weights))
    finally:
        yolo_attn.install()
    return model


def nc_of(model: Any, weights: Path) -> Any:
    """Return the same model with the number of classes of the weights."""
    from ultralytics.nn.tasks import DetectionModel

    from yolo_attn.weights import checkpoint

    names = checkpoint.read(weights).names
    built = DetectionModel(model.model.yaml, nc=len(names), verbose=False)
    built.names, built.args, built.task = names, model.model.args, "detect"
    return built


def validate(model: Any, settings: dict[str, Any]) -> float:
    """Return the mAP50 on the validation images; the model is not changed."""
    import copy

    from ultralytics import YOLO

    probe = YOLO(model.model.yaml.get("yaml_file", "yolov5n.yaml")) if not model.ckpt_path else model
    probe.model = copy.deepcopy(model.model).float()
    keep = ("data", "imgsz", "batch", "workers", "device", "plots", "verbose", "project", "exist_ok")
    return float(probe.val(name="val", **{k: settings[k] for k in keep}).box.map50)


if __name__ == "__main__":
    main()
