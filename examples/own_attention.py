"""Your own attention, from the class to an exported detector.

    python examples/own_attention.py                       # embedded data set, about a minute on a CPU
    python examples/own_attention.py --data my.yaml --img 640 --epochs 100

The class is registered in Python; docs/own_modules.md shows the same in a YAML.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import yolo_attn


class EnergyGate(nn.Module):
    """A gate from the root mean square of each channel, (B, C, H, W) -> (B, C, H, W).

    The first parameter of the constructor is called `channels`, so it receives the width that the row has in the graph,
    at every scale of the model; `reduction` is an option of the row.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.score = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        # The sum of squares in fp32: in half precision it overflows at activations of a few hundred.
        wide = x.float()
        energy = ((wide * wide).mean((2, 3), keepdim=True) + 1e-6).sqrt().to(x.dtype)
        return x * torch.sigmoid(self.score(energy))


def main() -> None:
    """Insert, train, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data set YAML (default: the embedded data set)")
    parser.add_argument("--img", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/own_attention"))
    args = parser.parse_args()

    # 1. This file is the plug-in: checkpoints name it, and other machines load it with --plugin own_attention.py.
    yolo_attn.load_plugin(__file__)
    text = yolo_attn.insert("yolov5n.yaml", "EnergyGate", where="backbone")  # shifts row numbers
    args.output.mkdir(parents=True, exist_ok=True)
    cfg = args.output / "yolov5n_energy.yaml"
    cfg.write_text(text, encoding="utf-8")

    # 2. Train with the host, as always.
    from ultralytics import YOLO

    model = YOLO(str(cfg))
    model.train(
        trainer=yolo_attn.Trainer, data=args.data or str(yolo_attn.embedded_data()), imgsz=args.img, epochs=args.epochs,
        batch=8, workers=0, project=str(args.output.resolve()), name="train", exist_ok=True, plots=False,
    )  # fmt: skip

    # 3. Export, run the file, compare it with PyTorch.
    yolo_attn.export_model(args.output / "train" / "weights" / "best.pt")


if __name__ == "__main__":
    main()
