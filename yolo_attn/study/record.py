"""What is recorded of a run, and of all: `run.yaml` in a run's folder, written in one step, and `runs.csv` from them."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import FileError, YoloAttnError
from ..files import write_text
from ..model_yaml.reader import read_mapping
from ..system import locks
from ..system.drafts import lock_name, scratch
from .plan import Plan, Run

__all__ = ["FILE", "clear", "folder_of", "read", "read_all", "write", "write_table"]

FILE = "run.yaml"
TABLE = "runs.csv"
_writing = threading.Lock()
FIGURES = ("mAP50-95", "mAP50", "AP_small", "AP_medium", "AP_large", "precision", "recall")
COLUMNS = [
    "run", "config", "seed", "status", "split", *FIGURES, "parameters", "gflops", "epochs", "seconds", "device",
    "yolo_attn", "host", "torch", "git", "data_sha256", "config_sha256", "finished", "reason",
]  # fmt: skip


def folder_of(study: Path, run: Run) -> Path:
    """Return a run's folder."""
    return study / "runs" / run.name


def read(study: Path, run: Run) -> dict[str, Any] | None:
    """Return what is recorded of a run, finished or failed; None where nothing is, whatever lies in its folder.

    Raises:
        FileError: The record is no record: somebody changed it.
    """
    file = folder_of(study, run) / FILE
    if not file.is_file():
        return None
    d = read_mapping(file, FileError, "It is the record of a run. Remove the run's folder, and it is trained again.")
    if d.get("status") not in ("finished", "failed") or d.get("config") != run.config or d.get("seed") != run.seed:
        raise FileError(f"{file}: is no record of {run.name}. Remove the run's folder, and it is trained again.")
    wrong = _wrong(d)
    if wrong:
        raise FileError(f"{file}: {wrong} is no figure of a run. Remove the run's folder, and it is trained again.")
    return d


def _wrong(d: Mapping[str, Any]) -> str:
    """What in a record cannot be a figure: a text, a percentage; nothing where all is well."""
    figures = d.get("figures")
    classes = figures.get("classes") if isinstance(figures, dict) else None
    for name, held in (("figures", figures), ("classes", classes)):
        if not isinstance(held, (dict, type(None))):
            return f"{name}: {str(held)[:40]}"
    shares = {**{k: v for k, v in (figures or {}).items() if k != "classes"}, **(classes or {})}
    amounts = {k: d.get(k) for k in ("parameters", "gflops", "seconds", "images")}
    for values, most in ((shares, 1 + 1e-9), (amounts, math.inf)):
        for name, v in values.items():
            number = isinstance(v, (int, float)) and not isinstance(v, bool)
            if v is not None and not (number and (math.isnan(v) or 0 <= v <= most)):
                return f"{name}: {str(v)[:40]}"
    return ""


def read_all(study: Path, plan: Plan) -> dict[Run, dict[str, Any]]:
    """Return the records of a plan's runs, as far as there are any."""
    return {run: d for run in plan.runs if (d := read(study, run)) is not None}


def write(study: Path, plan: Plan, run: Run, record: Mapping[str, Any]) -> None:
    """Record a run in one step: before it the run has not happened, after it it is never repeated.

    Raises:
        FileError: The disk refuses.
    """
    head = {"run": run.name, "config": run.config, "seed": run.seed}
    text = yaml.safe_dump({**head, **record}, sort_keys=False, allow_unicode=True)
    folder = folder_of(study, run)
    _to_disk(folder)
    write_text(folder / FILE, text)
    write_table(study, plan)


def _to_disk(folder: Path) -> None:
    """Wait until what the record vouches for is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            try:
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
            except OSError:  # some file systems have nothing to wait for
                return


def write_table(study: Path, plan: Plan) -> None:
    """Write `runs.csv` from all records; one process at a time, so that none takes another's row out again.

    Raises:
        FileError: The disk refuses.
    """
    lock = study / lock_name("runs")
    with _writing:  # threads of one process share its lock
        locks.take(lock, wait=True)
        try:
            _write_table(study, plan)
        finally:
            locks.release(lock)


def _write_table(study: Path, plan: Plan) -> None:
    stream = io.StringIO()
    table = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for run, d in read_all(study, plan).items():
        versions = d.get("versions") or {}
        table.writerow({
            **{k: _cell(v) for k, v in {**d, **(d.get("figures") or {})}.items()},
            "run": run.name,
            "yolo_attn": versions.get("yolo_attn"),
            "host": " ".join(f"{n} {versions[n]}" for n in ("ultralytics", "yolov5") if n in versions),
            "torch": versions.get("torch"),
        })  # fmt: skip
    write_text(study / TABLE, stream.getvalue())


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def clear(study: Path, run: Run) -> None:
    """Make the folder of a run that is not finished empty; what was left there is moved away in one step.

    Raises:
        FileError: The disk refuses.
    """
    folder = folder_of(study, run)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            with scratch(study) as away:
                for attempt in range(20):
                    try:
                        os.replace(folder, away / "left")
                        break
                    except PermissionError:  # Windows: a process that is just ending has a file open
                        if attempt == 19:
                            raise
                        time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    except OSError as exc:
        raise FileError(f"{folder}: cannot be written: {exc.strerror or exc}") from exc


def values(study: Path, plan: Plan, figure: str = "mAP50-95") -> dict[str, dict[int, float]]:
    """Return a figure of every finished run, by config and seed.

    Raises:
        YoloAttnError: The baseline has none.
    """
    out: dict[str, dict[int, float]] = {c: {} for c in plan.configs}
    for run, d in read_all(study, plan).items():
        value = (d.get("figures") or {}).get(figure) if d["status"] == "finished" else None
        if isinstance(value, (int, float)):
            out[run.config][run.seed] = float(value)
    if not out[plan.baseline]:
        raise YoloAttnError(f"{study}: no run of the baseline {plan.baseline} has finished: nothing to compare with")
    return out
