"""Does attention help? Train several configs with several seeds, and compare differences with the spread.

    python benchmarks/compare.py                                             # embedded data set, YOLOv5n, SE, ECA
    python benchmarks/compare.py --data my.yaml --weights yolov5nu.pt --cfgs yolov5n.yaml yolov5n_se.yaml --epochs 40

The first config is the baseline. Figures are those of the best epoch on the validation set; differences are paired by
seed. A difference that is not clearly larger than the spread of the seeds is not evidence of an effect.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METRICS = {"mAP50": "metrics/mAP50(B)", "mAP50-95": "metrics/mAP50-95(B)"}


def train(spec: str, seed: int, args: argparse.Namespace, project: Path) -> dict[str, float]:
    """Train one config with one seed and return the figures of its best epoch; `cfg:paper` sets the start."""
    cfg, _, start = spec.partition(":")
    name = f"{Path(cfg).stem}{start and '-' + start}-{seed}"
    command = [
        sys.executable,
        str(ROOT / "train_detect.py"),
        "--cfg",
        cfg,
        "--seed",
        str(seed),
        "--project",
        str(project),
    ]
    command += ["--name", name, "--noplots", "--no-export", "--epochs", str(args.epochs), *args.more]
    for flag in ("data", "weights", "device", "imgsz", "batch"):
        value = getattr(args, flag)
        command += [f"--{flag}", str(value)] if value else []
    command += ["--start", start] if start and args.weights else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    with (project / name / "results.csv").open(encoding="utf-8") as file:
        rows = [{k.strip(): v for k, v in r.items()} for r in csv.DictReader(file)]
    best = max(rows, key=lambda r: float(r[METRICS["mAP50-95"]]))
    return {m: float(best[column]) for m, column in METRICS.items()}


def main() -> None:
    """Run all trainings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cfgs", nargs="+", default=["yolov5n.yaml", "yolov5n_se.yaml", "yolov5n_eca.yaml"], metavar="YAML[:START]")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=20)
    add("--data")
    add("--weights")
    add("--device")
    add("--imgsz", type=int)
    add("--batch", type=int)
    add("--jobs", type=int, default=1, help="number of trainings to run in parallel")
    add("--project", help="folder in which to keep the runs")
    args, args.more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        project = Path(args.project or folder).resolve()
        jobs = {(c, s): pool.submit(train, c, s, args, project) for c in args.cfgs for s in range(args.seeds)}
        found = {k: job.result() for k, job in jobs.items()}
    print(
        f"best epoch of {args.epochs}, seeds 0 to {args.seeds - 1}: mean (least to most), difference to {args.cfgs[0]}"
    )
    for cfg in args.cfgs:
        cells = [f"{cfg:<28}"]
        for metric in METRICS:
            values = [found[cfg, s][metric] for s in range(args.seeds)]
            steps = [found[cfg, s][metric] - found[args.cfgs[0], s][metric] for s in range(args.seeds)]
            cell = f"{metric} {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            if cfg != args.cfgs[0]:
                cell += f" {statistics.mean(steps):+.3f} ({min(steps):+.3f} to {max(steps):+.3f})"
            cells.append(f"{cell:<62}")
        print(" ".join(cells).rstrip())


if __name__ == "__main__":
    main()
