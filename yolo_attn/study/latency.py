"""How long each config takes with onnxruntime: exported, and run in turns so that other load meets all alike.

``python -m yolo_attn.study.latency TASK.json`` measures in a process of its own, as opening a checkpoint imports its
host. Times are those of this machine at this moment; the ratio to the baseline's run of the same round is what carries
over.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, YoloAttnError, first_line
from ..files import read_text, write_text
from ..log import announce
from ..system import launch, locks
from ..system.drafts import lock_name, scratch
from .plan import hash_file

__all__ = ["FILE", "Latency", "main", "measure", "read"]

FILE = "latency.json"
SECONDS = 60  # about as long as all rounds together may take
ROUNDS = (15, 300)  # at least, at most
WARMUP = 3


@dataclass(frozen=True)
class Latency:
    """Latency of one config: one image, one thread of the CPU, without letterbox and suppression.

    Args:
        milliseconds: Median over rounds.
        spread: Half the interquartile range, in milliseconds.
        ratio: Median over rounds of its time divided by the baseline's.
        ratio_low: Lower end of the 95 % interval of that median, by the order of the rounds, whatever their distribution.
        ratio_high: Upper end.
        reason: Why there is none; the rest is NaN then.
    """

    milliseconds: float = math.nan
    spread: float = math.nan
    ratio: float = math.nan
    ratio_low: float = math.nan
    ratio_high: float = math.nan
    reason: str = ""


def side(imgsz: Any) -> int:
    """Return the side of the input that is timed: what all trainings share, else 640 pixels."""
    return imgsz if isinstance(imgsz, int) and imgsz > 0 else 640


def read(folder: Path) -> dict[str, Latency]:
    """Return what a folder's file holds, by config; empty where there is none, or none that can be read."""
    file = folder / FILE
    try:
        held = json.loads(read_text(file, FileError))["configs"]
        plain: dict[str, dict[str, Any]] = {n: {k: math.nan if x is None else x for k, x in v.items()} for n, v in held.items()}
        for v in plain.values():
            numbers = [x for k, x in v.items() if k != "reason"]
            if not all(isinstance(x, (int, float)) for x in numbers) or not (v.get("reason") or len(numbers) == 5):
                return {}
        return {n: Latency(**v) for n, v in plain.items()}
    except (FileError, ValueError, TypeError, KeyError, AttributeError):  # it is measured again
        return {}


def measure(folder: Path, files: Mapping[str, Path], imgsz: int, host: str = "") -> dict[str, Latency]:
    """Measure every config, unless the folder's file holds these very checkpoints; write it.

    Args:
        folder: Where the file goes.
        files: A checkpoint of each config, the baseline first.
        imgsz: Side of the input in pixels.
        host: The YOLOv5 checkout that classic checkpoints need.

    Returns:
        By config; where one cannot be exported, with the reason; empty where measuring failed, which is said.

    Raises:
        FileError: The disk refuses.
    """
    lock = folder / lock_name("latency")
    locks.take(lock, wait=True)  # two processes at once would measure one another
    try:
        asked = {n: hash_file(str(f)) for n, f in files.items()}
        if _asked(folder) == {"imgsz": imgsz, "checkpoints": asked}:
            return read(folder)
        announce("measuring the ONNX latency of %d configs", len(files))
        found = _measured(files, imgsz, host)
        if found is not None:
            write_text(folder / FILE, json.dumps({"checkpoints": asked, **found}, indent=2) + "\n")
            return read(folder)
        return {}
    finally:
        locks.release(lock)


def _asked(folder: Path) -> dict[str, Any]:
    """What the folder's file was measured for."""
    try:
        held = json.loads(read_text(folder / FILE, FileError))
        return {k: held[k] for k in ("imgsz", "checkpoints")}
    except (FileError, ValueError, TypeError, KeyError):
        return {}


def _measured(files: Mapping[str, Path], imgsz: int, host: str) -> dict[str, Any] | None:
    """What a process of its own measures; None, and said, where it fails: nothing is kept, the next command tries again."""
    with scratch() as place:
        task = {"files": {n: str(f) for n, f in files.items()}, "imgsz": imgsz, "host": host, "folder": str(place)}
        write_text(place / "task.json", json.dumps(task), durable=False)
        command, env = launch.command(__name__, str(place / "task.json")), launch.environment()
        done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(read_text(place / FILE, FileError))
            return found
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        announce("latency could not be measured: %s", lines[-1][:300] if lines else f"exit code {done.returncode}")
        return None


def main(argv: list[str]) -> int:
    """Do the task in a file and return the exit code."""
    task = json.loads(read_text(argv[0], YoloAttnError))
    place = Path(task["folder"])
    if task["host"] not in ("", "ultralytics", "yolov5"):
        from ..detectors.classic import use_host

        use_host(task["host"])
    found = _timed({n: Path(f) for n, f in task["files"].items()}, int(task["imgsz"]), place)
    about = {"imgsz": task["imgsz"], "threads": 1, "cores": os.cpu_count()}
    plain = {n: {k: None if x != x else x for k, x in asdict(v).items()} for n, v in found.items()}  # JSON has no NaN
    write_text(place / FILE, json.dumps({**about, "configs": plain}))
    return 0


def _timed(files: Mapping[str, Path], imgsz: int, place: Path) -> dict[str, Latency]:
    import numpy as np

    from ..runtime.bench import measure as in_turns
    from ..runtime.session import Detector

    opened: dict[str, Any] = {}
    out: dict[str, Latency] = {}
    for k, (name, file) in enumerate(files.items()):
        try:
            opened[name] = Detector(_exported(file, imgsz, place / f"{k}.onnx"), threads=1, provider="cpu", spin=False)
        except Exception as exc:  # one config that cannot be exported does not take the others' figures away
            out[name] = Latency(reason=f"{type(exc).__name__}: {first_line(exc)[:300]}".replace("YoloAttnError: ", ""))
    if opened:
        inputs = [np.random.default_rng(0).random((1, 3, *d.size), dtype=np.float32) for d in opened.values()]
        detectors = list(opened.values())
        began = time.perf_counter()
        in_turns(detectors, inputs, rounds=1, warmup=WARMUP)
        each = (time.perf_counter() - began) / (WARMUP + 1)
        rounds = int(min(max(SECONDS / max(each, 1e-6), ROUNDS[0]), ROUNDS[1]))
        based = next(iter(files)) in opened
        for name, t in zip(opened, in_turns(detectors, inputs, rounds=rounds, warmup=0)):
            ratio = (t.ratio, *_of_median(t.ratios)) if based else (math.nan,) * 3
            middle, low, high = (round(v, 4) for v in ratio)
            out[name] = Latency(round(t.median, 3), round(t.spread, 3), middle, low, high)
    return {n: out[n] for n in files}


def _of_median(values: Any) -> tuple[float, float]:
    """The 95 % interval of a median: the two values, in order, that it lies between in 95 of 100 samples at least."""
    from scipy import stats

    ordered = sorted(map(float, values))
    k = int(stats.binom.ppf(0.025, len(ordered), 0.5))  # how many lie below the lower end
    k = max(k - 1, 0) if len(ordered) > 5 else 0
    return ordered[k], ordered[-1 - k]


def _exported(file: Path, imgsz: int, target: Path) -> Path:
    from ..export.single import export

    return export(file, imgsz=imgsz, output=target, log=lambda line: None).path


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
