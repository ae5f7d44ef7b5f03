"""Cost of the parse hook: build and run a detector with and without it, interleaved in one process.

    python benchmarks/hook.py [--rounds 100] [--cfg yolov5n]

Prints medians of the ratios with / without; 1.00 means no cost. Pairs are interleaved in alternating order, so that a
change of the machine's speed affects both sides alike. Times are CPU times of the process.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import statistics
import time
from typing import Any, Callable

os.environ.setdefault("YOLO_OFFLINE", "true")

import torch
from ultralytics.nn import tasks

import yolo_attn


def paired(rounds: int, plain: Callable[[], Any], hooked: Callable[[], Any]) -> list[float]:
    """Return the ratio with / without for each round."""
    ratios = []
    for k in range(rounds + 2):
        took = {}
        for side in ("plain", "hooked") if k % 2 else ("hooked", "plain"):
            (yolo_attn.install if side == "hooked" else yolo_attn.uninstall)()
            run = plain if side == "plain" else hooked
            gc.collect()
            gc.disable()  # a collection within one side's run would count against that side
            started = time.process_time()
            run()
            took[side] = time.process_time() - started
            gc.enable()
        ratios.append(took["hooked"] / took["plain"])
    return ratios[2:]  # the first two warm caches


def told(name: str, ratios: list[float]) -> None:
    """Print one line of results."""
    q = statistics.quantiles(ratios, n=4)
    print(f"{name:<34} {statistics.median(ratios):.3f}   quartiles {q[0]:.3f} to {q[2]:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--cfg", default="yolov5n")
    args = parser.parse_args()
    torch.set_num_threads(1)
    yolo_attn.uninstall()
    d = tasks.yaml_model_load(f"{args.cfg}.yaml")

    def build() -> Any:
        return tasks.DetectionModel(copy.deepcopy(d), verbose=False)

    print(f"with / without the parse hook, {args.rounds} interleaved rounds")
    told(f"build {args.cfg}", paired(args.rounds, build, build))
    yolo_attn.uninstall()
    torch.manual_seed(0)
    plain = build().eval()
    yolo_attn.install()
    torch.manual_seed(0)
    hooked = build().eval()
    x = torch.rand(1, 3, 320, 320)
    with torch.no_grad():
        told(f"forward {args.cfg} at 320", paired(args.rounds, lambda: plain(x), lambda: hooked(x)))
        assert torch.equal(plain(x)[0], hooked(x)[0])
    yolo_attn.uninstall()
    first = time.perf_counter()
    yolo_attn.install()
    first = time.perf_counter() - first
    started = time.perf_counter()
    build()
    print(f"installing the hook, once per process: {first / (time.perf_counter() - started):.2f} of one build")


if __name__ == "__main__":
    main()
