"""What a report is written from, whether it comes from a study or from training folders that anyone left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FileError, YoloAttnError
from ..evaluation import images
from ..model_yaml import load
from . import about, latency, plan, record, worker
from .plan import Plan, Run

__all__ = ["Note", "Results", "of_folder", "of_study"]


@dataclass(frozen=True)
class Note:
    """A remark, in whatever language the report is.

    Args:
        key: Of :data:`yolo_attn.study.wording.TEXTS`.
        fields: What its text is filled with.
    """

    key: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Runs of several configs and what is known of them.

    Args:
        folder: Where reports go.
        configs: What each config is made of, the baseline first.
        records: What is recorded of each run, as :mod:`yolo_attn.study.record` keeps it.
        places: The folder of each run, with its log and its detections, as far as there are any.
        conditions: What holds for all runs: ``host``, ``data``, ``weights``, ``epochs``, ``imgsz``, ``seeds``.
        latency: Of each config, as :func:`yolo_attn.study.latency.measure` returns it; empty where it is not measured.
        notes: What a reader must know.
        planned: Runs of each config that there should be; 0 where nobody planned.
        boxes: The folder of each run's detections, where it is another than the run's.
    """

    folder: Path
    configs: Mapping[str, about.Config]
    records: Mapping[Run, Mapping[str, Any]]
    places: Mapping[Run, Path]
    conditions: Mapping[str, Any]
    latency: Mapping[str, latency.Latency] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    planned: int = 0
    boxes: Mapping[Run, Path] = field(default_factory=dict)
    _matches: dict[Run, images.Matches] = field(default_factory=dict, repr=False, compare=False)

    @property
    def baseline(self) -> str:
        """The first config."""
        return next(iter(self.configs))

    def finished(self, config: str) -> dict[Run, Mapping[str, Any]]:
        """The finished runs of a config, by seed."""
        mine = {r: d for r, d in self.records.items() if r.config == config and d["status"] == "finished"}
        return dict(sorted(mine.items(), key=lambda item: item[0].seed))

    def values(self, figure: str) -> dict[str, dict[int, float]]:
        """A figure of every finished run, by config and seed."""
        out: dict[str, dict[int, float]] = {}
        for config in self.configs:
            held = {r.seed: (d.get("figures") or {}).get(figure) for r, d in self.finished(config).items()}
            out[config] = {s: float(v) for s, v in held.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        return out

    def detections(self, run: Run) -> tuple[list[Any], list[Any]] | None:
        """Objects and detections of each image, or None where they were not kept.

        Raises:
            YoloAttnError: They are damaged.
        """
        file = self.boxes.get(run, self.places[run]) / worker.DETECTIONS
        return worker.unpack(file) if file.is_file() else None

    def matches(self, run: Run) -> images.Matches | None:
        """What a run found, matched to the objects, or None where detections were not kept; matched once.

        Raises:
            YoloAttnError: They are damaged.
        """
        if run not in self._matches:
            held = self.detections(run)
            if held is None:
                return None
            most = max((int(t[:, 4].max()) for t in held[0] if len(t)), default=0)  # classes without an object count nowhere
            self._matches[run] = images.match(*held, most + 1)
        return self._matches[run]


def of_folder(folder: Path) -> Results:
    """Return the results of a study's folder.

    Raises:
        FileError: It is no study, or somebody changed its files.
    """
    found = plan.read(folder)
    if found is None:
        raise FileError(f"{folder}: holds no {plan.FILE}: it is no study")
    try:
        the = Plan(
            **{k: found[k] for k in ("host", "data", "data_sha256", "weights", "weights_sha256", "epochs", "arguments", "configs")},
            seeds=tuple(found["seeds"]),
            plugins=tuple(found["plugins"]),
        )
        _check(the)
        return of_study(folder, the)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:  # of a plan that somebody changed
        raise FileError(f"{folder / plan.FILE}: is no plan of a study: {exc!r}") from exc


def _check(the: Plan) -> None:
    if not the.configs:
        raise ValueError("no configs")
    if not the.seeds or len(set(the.seeds)) < len(the.seeds) or not all(isinstance(s, int) for s in the.seeds):
        raise ValueError(f"seeds {list(the.seeds)}")
    int(the.arguments.get("imgsz", 0))


def of_study(folder: Path, the: Plan) -> Results:
    """Return the results of a study.

    Args:
        folder: Of the study.
        the: Its plan.

    Raises:
        FileError: Somebody changed its files.
    """
    start = "identity" if the.weights else "paper"  # what a training takes by default
    configs = {n: _described(folder, n, c, c.get("start") or start) for n, c in the.configs.items()}
    return Results(
        folder,
        configs,
        record.read_all(folder, the),
        {run: record.folder_of(folder, run) for run in the.runs},
        {
            "host": the.host, "data": the.data, "weights": the.weights, "epochs": the.epochs,
            "imgsz": the.arguments.get("imgsz"), "seeds": len(the.seeds),
        },
        latency.read(folder),
        planned=len(the.seeds),
    )  # fmt: skip


def _described(folder: Path, name: str, config: Mapping[str, str], start: str) -> about.Config:
    file = Path(config.get("source") or folder / "configs" / f"{name}.yaml")
    try:
        return about.of(load.read(file), start=start)  # no plug-in is loaded for it: a report runs no code of others
    except YoloAttnError:  # its file is gone; figures do not depend on it
        return about.Config(known=False)
