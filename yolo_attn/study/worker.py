"""One run of a study in a process of its own: train, measure the best epoch, leave what was found for who launched it.

``python -m yolo_attn.study.worker TASK.json LAUNCHER``. It ends when its launcher does, killed or not: standard input is a
pipe that closes with it. That takes a moment, in which another launcher may begin the same run again; so a worker holds a
lock while it lives, and one whose launcher was gone before it got the lock writes nothing.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from .. import files
from ..errors import YoloAttnError, first_line
from ..system import drafts, locks, processes

__all__ = ["FAILED", "FULL", "begin", "lock_of", "main"]

RESULT, TROUBLE, DETECTIONS = "result.json", "trouble.json", "detections.npz"
FAILED, FULL = 1, 74  # exit codes; the second where the disk is full


def main(argv: list[str]) -> int:
    """Do the task in a file and return the exit code."""
    task_file = begin(argv)
    try:
        task = json.loads(files.read_text(task_file, YoloAttnError))
        folder = Path(task["folder"])
        files.write_text(folder / RESULT, json.dumps(_done(task, folder)), error=None)
        return 0
    except BaseException as exc:  # whatever a host raises is this run's reason, SystemExit and KeyboardInterrupt as well
        full = _says_full(exc)
        if not isinstance(exc, YoloAttnError):
            traceback.print_exc()
        kind = "" if isinstance(exc, YoloAttnError) else f"{type(exc).__name__}: "
        reason = f"{kind}{first_line(exc)}".strip(": ") or type(exc).__name__
        try:
            files.write_text(task_file.with_name(TROUBLE), json.dumps({"reason": reason}))
        except YoloAttnError:
            full = True
        return FULL if full else FAILED


def begin(argv: list[str]) -> Path:
    """Return the file of the task once this process alone works in its folder.

    Args:
        argv: The file, and the launcher as :func:`yolo_attn.system.processes.owner` says it.

    Raises:
        SystemExit: The launcher is gone, and the folder may be another's by now.
    """
    _end_with_launcher()
    task_file = Path(argv[0])
    locks.take(lock_of(task_file.parent), wait=True)
    if processes.alive(argv[1]) is False:
        raise SystemExit(FAILED)
    return task_file


def lock_of(folder: Path) -> Path:
    """Return the lock that a worker holds while it lives; it is beside the run's folder, which may be cleared away."""
    return folder.with_name(drafts.lock_name(f"{folder.name}-worker"))


def _end_with_launcher() -> None:
    """Kill this process and those that it launched, once nobody holds the other end of standard input."""
    pipe = os.dup(0)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)  # nothing that is launched shall wait for input
    os.close(devnull)

    def watch() -> None:
        while os.read(pipe, 1024):
            pass
        if os.name == "nt":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(os.getpid())], check=False, capture_output=True)
        elif os.getpgid(0) == os.getpid():  # a group of its own, or there is none to end
            os.killpg(0, signal.SIGKILL)
        os._exit(FAILED)

    threading.Thread(target=watch, daemon=True).start()


def _says_full(exc: BaseException | None) -> bool:
    import errno

    codes = {getattr(errno, n) for n in ("ENOSPC", "EDQUOT") if hasattr(errno, n)}
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno in codes:
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _done(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    from ..training import options, ultralytics
    from . import trackers

    began = time.monotonic()
    given = options.parse(task["argv"])
    trackers.name(task.get("about") or {}, until=task.get("until"))
    if given.host == "ultralytics":
        from .seeding import seed_ultralytics

        seed_ultralytics(given.seed)
        trackers.follow_ultralytics()
    elif given.resume:
        _resume_here(given, task, folder)
    try:
        code = ultralytics.main(given)
    except trackers.Paused:
        code = trackers.PAUSED
    if code and not (code == trackers.PAUSED and task.get("until")):
        raise YoloAttnError(f"the training ended with exit code {code}; {folder / 'log.txt'} has what it said")
    about = {"seconds": round(time.monotonic() - began, 1), "versions": _versions(given.host)}
    if task.get("until"):  # a rung of a search, which is judged by what the host has logged
        return about
    best = next(p for p in (folder / "weights" / n for n in ("best.pt", "last.pt")) if p.is_file())
    return {**_measured(task, given, best, folder), **about}


def _resume_here(given: Any, task: dict[str, Any], folder: Path) -> None:
    """Let a classic training go on with this device and this machine's data: the host goes by its `opt.yaml`."""
    import yaml

    from ..model_yaml.reader import read_mapping

    file = folder / "opt.yaml"
    if file.is_file():
        opt = read_mapping(file, YoloAttnError, "It should contain the options of a run.")
        opt.update(device=given.device, data=task["data"])
        files.write_text(file, yaml.safe_dump(opt, sort_keys=False))


def _measured(task: dict[str, Any], given: Any, best: Path, folder: Path) -> dict[str, Any]:
    from ..detectors import opening
    from ..detectors.classic import use_host
    from ..evaluation import figures as evaluation

    if given.host not in ("ultralytics", "yolov5"):
        use_host(given.host)
    source = opening.open_source(best)
    single = bool(given.single_cls or given.extra.get("single_cls"))
    split = evaluation.split_of(task["data"], single_cls=single)
    size = evaluation.size_of(source, task["imgsz"])
    truth, found = evaluation.detect(source, split, task["imgsz"], given.device)
    keep(folder / DETECTIONS, truth, found)
    figures = evaluation.figures(truth, found, split.names)
    return {"split": split.name, "images": len(truth), "figures": figures, **size}


def keep(file: Path, truth: list[Any], found: list[Any]) -> None:
    """Keep objects and detections of each image.

    Raises:
        OSError: The disk refuses.
    """
    import numpy as np

    with files.replacing(file, error=None) as draft:
        np.savez_compressed(draft, **_packed(truth, found))


def _packed(truth: list[Any], found: list[Any]) -> dict[str, Any]:
    """What was found on each image as plain arrays, the number of its image in the last column."""
    import numpy as np

    def joined(rows: list[Any], width: int) -> Any:
        numbered = [np.c_[np.asarray(r).reshape(-1, width), np.full(len(r), i)] for i, r in enumerate(rows)]
        return np.concatenate(numbered) if numbered else np.zeros((0, width + 1))

    return {"truth": joined(truth, 5), "found": joined(found, 6), "images": np.array(len(truth))}


def unpack(file: Path) -> tuple[list[Any], list[Any]]:
    """Return what :func:`keep` kept of the images: objects and detections of each.

    Raises:
        YoloAttnError: The file is missing or damaged.
    """
    import zipfile

    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as held:
            count, out = int(held["images"]), []
            for key in ("truth", "found"):
                rows = held[key]
                out.append([rows[rows[:, -1] == i, :-1] for i in range(count)])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise YoloAttnError(f"{file}: cannot be read: {first_line(exc)}. Remove the run's folder to train it again") from exc
    return out[0], out[1]


def _versions(host: str) -> dict[str, str]:
    import importlib.metadata

    import numpy
    import torch

    from .._version import __version__

    out = {"yolo_attn": __version__, "python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    for name in ("ultralytics", "yolov5") if host == "yolov5" else ("ultralytics",):
        out[name] = importlib.metadata.version(name)
    if host not in ("ultralytics", "yolov5"):
        out["yolov5"] = host
    return out


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
