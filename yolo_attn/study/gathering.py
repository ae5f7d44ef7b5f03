"""Several training folders as the results of one comparison: grouped to configs and seeds, validated again, told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import FileError, UsageError, YoloAttnError, first_line
from ..evaluation import figures as evaluation
from ..files import read_text, write_text
from ..log import announce
from . import about, latency, worker
from .folders import GAINS, Folder, find, read
from .plan import Run, hash_data, hash_file
from .results import Note, Results

__all__ = ["gather"]

METRIC = "mAP50-95"
KEPT = "measured.json"
BUFFERS = frozenset("running_mean running_var num_batches_tracked anchors anchor_grid stride strides".split())  # no weights


def gather(
    given: Sequence[str],
    output: Path,
    *,
    baseline: str = "",
    data: str = "",
    device: str = "",
    host: str = "",
    validate: bool = True,
    timed: bool = True,
) -> Results:
    """Read training folders and validate them again where that can be done.

    Args:
        given: As :func:`yolo_attn.study.folders.find` takes them.
        output: The folder of the report; what is validated is kept there, and taken from there the next time.
        baseline: The config that others stand beside; the first one without attention when empty.
        data: The data set's YAML to validate on, where the folders' own are not on this machine.
        device: To validate on.
        host: The YOLOv5 checkout that classic checkpoints need.
        validate: Validate again; else the logs' figures are taken, and without `timed` no code of a checkpoint is run.
        timed: Measure ONNX latency.

    Raises:
        FileError: One is no training folder, or none holds a figure.
        DataError: `data` cannot be used.
        UsageError: There is no config of the baseline's name, or two names come out alike.
    """
    if data:
        evaluation.split_of(data)  # what the user names must be usable; what a folder names may be gone
    pairs = find(given)
    found = [read(path, name) for name, path in pairs]
    written: dict[str, str] = {}
    for (name, _), folder in zip(pairs, found):
        if name and written.setdefault(folder.config, name) != name:
            raise UsageError(f"{written[folder.config]!r} and {name!r} both come out as {folder.config}: give names that differ in it")
    if host:
        from ..detectors.classic import use_host

        use_host(host)
    notes: list[Note] = []
    found = _without_copies(found, notes)
    named = _runs(found, notes)
    opened: dict[str, tuple[about.Config, Path]] = {}
    records: dict[Run, dict[str, Any]] = {}
    boxes: dict[Run, Path] = {}
    for run, folder in named.items():
        announce("%s: %s, seed %s", folder.path, run.config, run.seed)
        boxes[run] = output / "runs" / run.name
        measured = _measured(run, folder, boxes[run], data, device, validate)
        config = measured.pop("config", None)
        if config is not None and folder.best is not None and (run.config not in opened or not opened[run.config][0].known):
            opened[run.config] = (config, folder.best)
        records[run] = {"run": run.name, "config": run.config, "seed": run.seed, "origin": str(folder.path), **measured}
        notes += folder.problems
    notes += _figures(records, named)
    if not any(d["status"] == "finished" for d in records.values()):
        raise FileError("none of the folders holds a figure: neither epochs in results.csv, nor a best.pt that can be validated")
    order = _order(records, opened, baseline)
    notes += _unequal(named)
    imgsz = _common(named, "imgsz")
    files = {c: opened[c][1] for c in order if c in opened}
    times: dict[str, latency.Latency] = {}
    if timed and order[0] in files:
        times = latency.measure(output, files, latency.side(imgsz), host)
    conditions = {k: _common(named, k) for k in ("data", "epochs", "imgsz")}
    return Results(
        output, {c: opened[c][0] if c in opened else about.Config(known=False) for c in order},
        records, {r: f.path for r, f in named.items()}, conditions, times, tuple(notes), 0, boxes,
    )  # fmt: skip


def _without_copies(found: Sequence[Folder], notes: list[Note]) -> list[Folder]:
    """Leave out folders whose logs equal another's to the last digit: a copy is no second training."""
    kept: list[Folder] = []
    for folder in found:
        twin = next((k for k in kept if folder.log is not None and _same(k, folder)), None)
        if twin is None:
            kept.append(folder)
        else:
            notes.append(Note("duplicates", {"names": f"{twin.path}, {folder.path}"}))
    return kept


def _same(a: Folder, b: Folder) -> bool:
    if a.config != b.config or a.seed != b.seed or a.log is None or b.log is None or a.log.epochs != b.log.epochs:
        return False
    columns = [c for c in a.log.columns if c != "time"]
    return columns == [c for c in b.log.columns if c != "time"] and all(
        repr(a.log.columns[c]) == repr(b.log.columns[c]) for c in columns
    )


def _runs(found: Sequence[Folder], notes: list[Note]) -> dict[Run, Folder]:
    """Give each folder a config and a seed of its own; a seed that occurs again is a repetition."""
    keys: list[tuple[str, int, int]] = []
    for folder in found:
        if folder.seed is None:
            notes.append(Note("no_seed", {"run": folder.path}))
        seed = folder.seed or 0
        again = sum((c, s) == (folder.config, seed) for c, s, _ in keys)
        keys.append((folder.config, seed, again))
    for config, seed in dict.fromkeys((c, s) for c, s, again in keys if again):
        names = [str(f.path) for f, (c, s, _) in zip(found, keys) if (c, s) == (config, seed)]
        notes.append(Note("repeats", {"names": ", ".join(names)}))
    if not any(again for _, _, again in keys):
        return {Run(config, seed): folder for (config, seed, _), folder in zip(keys, found)}
    numbers = {pair: k for k, pair in enumerate(sorted({(again, seed) for _, seed, again in keys}))}  # the same for all
    return {Run(config, numbers[again, seed]): folder for (config, seed, again), folder in zip(keys, found)}


# -- one folder


def _measured(run: Run, folder: Folder, kept: Path, data: str, device: str, validate: bool) -> dict[str, Any]:
    """What can be measured of a run: of its weights, and on its data."""
    out: dict[str, Any] = {"status": "failed", "reason": "neither epochs nor weights", "figures": {}}
    if folder.log is not None:
        times = [t for t in folder.log.columns.get("time", []) if math.isfinite(t)]
        out.update(status="finished", seconds=times[-1] if times else None)
    if folder.best is None:
        return out
    imgsz = folder.settings.get("imgsz")
    side = imgsz if isinstance(imgsz, int) and imgsz > 0 else 640
    asked = {"checkpoint": hash_file(str(folder.best)), "imgsz": side}
    used = data or _data_of(folder)
    if validate and used:
        asked["data"] = hash_data(used)
    known = _kept(kept, asked)
    if known is not None:
        return {**out, "status": "finished", "config": _config(known.pop("yaml")), **known}
    if not validate:
        return {**out, **_read_only(folder)}
    from ..detectors import opening

    try:
        source = opening.open_source(folder.best)
    except Exception as exc:  # whatever a host raises on a damaged checkpoint is said, and the log remains
        folder.lacks("not_opened", file=folder.best.name, reason=first_line(exc)[:300])
        return out
    fresh: dict[str, Any] = {"yaml": dict(getattr(source.model, "yaml", None) or {})}
    try:
        fresh.update(evaluation.size_of(source, side))
        if used:
            single = bool(folder.settings.get("single_cls"))
            split = evaluation.split_of(used, single_cls=single)
            truth, boxes = evaluation.detect(source, split, side, device)
            kept.mkdir(parents=True, exist_ok=True)
            worker.keep(kept / worker.DETECTIONS, truth, boxes)
            fresh.update(split=split.name, images=len(truth), figures=evaluation.figures(truth, boxes, split.names))
    except YoloAttnError as exc:
        folder.lacks("no_validation", reason=first_line(exc)[:300])
    except (RuntimeError, ValueError, IndexError, TypeError) as exc:  # of torch, where weights and data do not belong together
        folder.lacks("no_validation", reason=f"{type(exc).__name__}: {first_line(exc)[:300]}")
    if "figures" in fresh:
        _keep(kept, asked, fresh)
    elif not used:
        folder.lacks("no_data", data=folder.data or "-")
    config = _config(fresh.pop("yaml"))
    return {**out, "config": config, **fresh, "status": "finished" if fresh.get("figures") else out["status"]}


def _read_only(folder: Folder) -> dict[str, Any]:
    """What a checkpoint says without a host: no code of it is run."""
    from ..weights import checkpoint

    assert folder.best is not None
    try:
        held = checkpoint.read(folder.best)
    except YoloAttnError as exc:
        folder.lacks("not_opened", file=folder.best.name, reason=first_line(exc)[:300])
        return {}
    learned = [t for n, t in held.tensors.items() if n.rpartition(".")[2] not in BUFFERS]
    return {"parameters": sum(int(t.numel()) for t in learned), "config": _config(held.yaml)}


def _config(d: dict[str, Any]) -> about.Config:
    return about.of(d) if d else about.Config(known=False)


def _data_of(folder: Folder) -> str:
    """The data set that a folder names, where it is on this machine."""
    said = folder.data
    return said if said and Path(said).expanduser().is_file() else ""


def _kept(place: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What was measured of these weights on these data before."""
    try:
        held = json.loads(read_text(place / KEPT, FileError))
        if held["asked"] == asked and (place / worker.DETECTIONS).is_file():
            found: dict[str, Any] = held["found"]
            return found
    except (FileError, ValueError, KeyError, TypeError):
        pass
    return None


def _keep(place: Path, asked: dict[str, Any], found: dict[str, Any]) -> None:
    try:
        text = json.dumps({"asked": asked, "found": found}, indent=2)
    except (TypeError, ValueError):  # a stranger's model dictionary that JSON cannot hold is measured again
        return
    write_text(place / KEPT, text + "\n")


# -- all of them


def _figures(records: dict[Run, dict[str, Any]], named: dict[Run, Folder]) -> list[Note]:
    """Let one evaluator count for all: that of this kit where every run was validated again, else the hosts' own logs."""
    finished = {r: d for r, d in records.items() if d["status"] == "finished"}
    again = [r for r, d in finished.items() if d["figures"].get(METRIC) is not None]
    if len(again) == len(finished):
        return [Note("validated", {"n": len(again)})] if again else []
    for run, d in finished.items():
        log = named[run].log
        best = log.best() if log is not None else None
        d["figures"] = {k: v for k, v in d["figures"].items() if k.startswith("AP_") or k == "classes"}
        d["split"] = None
        if log is not None and best is not None:
            d["figures"].update({c: log.columns[c][best] for c in (METRIC, "mAP50", "precision", "recall") if c in log.columns})
    return [Note("not_validated", {"metric": METRIC})]


def _order(records: dict[Run, dict[str, Any]], opened: dict[str, tuple[about.Config, Path]], baseline: str) -> list[str]:
    """The configs, the baseline first."""
    names = list(dict.fromkeys(r.config for r in records))
    if baseline and baseline not in names:
        raise UsageError(f"--baseline {baseline}: no folder is of that config; there are {', '.join(names)}")
    with_figure = [n for n in names if any(r.config == n and METRIC in d["figures"] for r, d in records.items())]
    plain = [n for n in with_figure if n in opened and opened[n][0].known and not opened[n][0].modules]
    first = baseline or next(iter([*plain, *with_figure, *names]))
    return [first, *(n for n in names if n != first)]


def _common(named: dict[Run, Folder], key: str) -> Any:
    """A setting that all share; None where they differ or none says it."""
    values = {repr(f.settings[key]): f.settings[key] for f in named.values() if key in f.settings}
    return next(iter(values.values())) if len(values) == 1 else None


def _unequal(named: dict[Run, Folder]) -> list[Note]:
    """Settings in which trainings differ, beside the config and the seed: one remark, trainings of equal settings together."""
    said: dict[str, dict[Run, str]] = {}
    for run, folder in named.items():
        for key, value in folder.settings.items():
            said.setdefault(key, {})[run] = _written(value)
    hosts = set(said.get("host", {}).values())
    different = [k for k, v in said.items() if len(set(v.values())) > 1 and not (len(hosts) > 1 and k in GAINS)]
    if not different:
        return []
    groups: dict[str, list[str]] = {}
    for run in named:
        settings = ", ".join(f"{k} {said[k][run]}" for k in different if run in said[k])
        if settings:
            groups.setdefault(settings, []).append(run.name)
    return [Note("unequal", {"values": "; ".join(f"{', '.join(names)}: {s}" for s, names in groups.items())})]


def _written(value: Any) -> str:
    """A setting as text; 1, 1.0 and true are one."""
    return f"{float(value):g}" if isinstance(value, (bool, int, float)) else str(value)
