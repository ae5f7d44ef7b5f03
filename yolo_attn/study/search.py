"""`yolo_attn.search(...)`: which attention, where, with which start, or none; and the hosts' part of a search."""

from __future__ import annotations

import csv
import itertools
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Union

from ..errors import FileError, UsageError
from ..files import expand, read_source, replacing
from ..words import option
from . import api, record, search_course, search_ledger, search_plan, search_run
from . import candidates as making
from . import jobs as working
from . import plan as planning
from . import run as running
from .closing import close
from .jobs_where import Ray, as_cluster, check_places, places
from .plan import Plan, Run

__all__ = ["ATTENTION", "START", "WHERE", "search"]

FILE = "search.yaml"
CONFIRMATION = "confirmation"  # the folder of the study that gives the verdict
# Tried when nothing is named: small modules of every kind that the catalogue has, where papers put them.
ATTENTION = ("SEAttention", "ECA", "CBAM", "CoordAtt", "EMAttention", "SimAM")
WHERE = ("backbone", "neck")
START = ("identity", "paper")
# Columns of a host's results.csv: ultralytics, classic YOLOv5.
FIGURES = ("metrics/mAP50-95(B)", "metrics/mAP_0.5:0.95")

Names = Union[str, Sequence[str], None]


def search(
    base: str = "yolov5n.yaml",
    *,
    attention: Names = None,
    where: Names = None,
    start: Names = None,
    data: str = "",
    budget: str = "6h",
    epochs: int | None = None,
    weights: str = "",
    imgsz: int | None = None,
    batch: int | None = None,
    device: str = "",
    host: str = "ultralytics",
    jobs: int | None = None,
    ray: str | bool | Ray | None = None,
    storage: str = "sqlite",
    output: str | os.PathLike[str] = "search",
    plugins: Sequence[str] = (),
    **arguments: Any,
) -> dict[str, Any]:
    """Which attention helps here, and where, or none: thin candidates out, then confirm who is left.

    The search is a folder; the same call goes on with it after an interruption, and several processes share it.

    Args:
        base: The model that attention is put into, and that it has to beat.
        attention: Names of modules; a few small ones of every kind when absent.
        where: Places, ``backbone`` and ``neck`` when absent; ``backbone+neck`` is both at once.
        start: ``identity``, ``paper`` or both, which is the default.
        data: The data set's YAML; the embedded data set when empty.
        budget: Training time of all runs together, as ``6h``, ``90m`` or ``2d``, or full trainings, as ``40runs``.
        epochs: Of a full training.
        weights: What all begin from.
        imgsz: Side of the images in pixels.
        batch: Images a step.
        device: As for :func:`yolo_attn.compare`, like `jobs` and `ray`.
        host: ``ultralytics``, ``yolov5``, or the folder of a YOLOv5 checkout.
        jobs: Trainings at a time.
        ray: A Ray cluster.
        storage: Where Optuna keeps the trials: ``sqlite``, a file in the folder; ``journal``, a file for network folders;
            or the URL of a database.
        output: The folder of the search.
        plugins: Files of attention of your own.
        arguments: Further arguments of the host.

    Returns:
        See :func:`.search_run.result`.

    Raises:
        YoloAttnError: A module or place that does not exist, data that cannot be used, a budget that is too small, a
            folder that holds another plan, a full disk, a baseline that fails.
    """
    from ..registry.plugins import load_file

    api.require()
    search_ledger.require()
    spent = search_plan.read_budget(budget)
    for file in plugins:
        load_file(file)
    if arguments.get("save") is False or arguments.get("val") is False:
        raise UsageError("a search goes on from checkpoints and chooses by validation: 'save' and 'val' stay on")
    if epochs is not None and epochs < 1:
        raise UsageError(f"{option('epochs')} must be at least 1, got {epochs}")
    check_places(str(device), jobs, as_cluster(ray))
    if any("," in d for d in working.devices(str(device))):
        raise UsageError(
            f"{option('device', device)}: a search pauses trainings at the end of a rung, which one training on several GPUs "
            f"does not; give each GPU a run of its own, 0,1 and not 0+1"
        )
    made, space = candidates(base, api.listed(attention), api.listed(where), api.listed(start))
    plan, used = api.checked(
        made, data=data, epochs=epochs, seeds=(), weights=weights, imgsz=imgsz, batch=batch, host=host, plugins=plugins,
        arguments=arguments,
    )  # fmt: skip
    if spent.runs is not None and search_plan.design(len(space.choices), spent.runs, plan.epochs) is None:
        least = math.ceil(search_plan.least(len(space.choices), plan.epochs))
        raise UsageError(f"{option('budget', budget)}: the least for a search is {least} full trainings, {least}runs")
    folder = Path(os.path.abspath(expand(output)))
    planning.settle(folder, plan, made, file=FILE, more={"budget": str(budget), "storage": search_ledger.without_password(storage)})
    api.check_built(made, folder, plan.host)
    ledger = search_ledger.Ledger(folder, storage)
    course = search_course.Course(space, spent, plan.epochs, ledger)
    with places(plan.host, str(device), jobs, as_cluster(ray)) as where_to:
        hosts = Hosts(folder, plan, used, made, where_to)
        with working.progress(hosts.epochs, lambda: hosts.total(course), lambda: hosts.told(course)):
            return search_run.carry_out(folder, course, hosts, where_to)


def candidates(
    base: str, attention: Sequence[str], where: Sequence[str], starts: Sequence[str]
) -> tuple[list[making.Candidate], search_course.Space]:
    """Return the baseline and the candidates, and what each is; what comes out alike counts once.

    Raises:
        YoloAttnError: A module or a place that does not exist.
    """
    grid = [list(attention or ATTENTION), list(where or WHERE), list(starts or START)]
    found = making.from_grid(base, *grid)
    seen: set[str] = set()
    made, choices = [found[0]], {}
    for candidate, choice in zip(found[1:], itertools.product(*grid)):
        if candidate.sha256 not in seen:  # a module without a choice of start is the same for both
            seen.add(candidate.sha256)
            made.append(candidate)
            choices[candidate.name] = dict(zip(("module", "where", "start"), choice))
    return made, search_course.Space(found[0].name, choices)


class Hosts:
    """Lets the hosts train what a search needs.

    Args:
        folder: Of the search.
        plan: Its plan, without seeds.
        data: The data set's YAML.
        made: The baseline and the candidates.
        places: Where to train.
    """

    def __init__(
        self, folder: Path, plan: Plan, data: str, made: Sequence[making.Candidate], places: Sequence[working.Place]
    ) -> None:
        self.folder, self.plan, self.data, self.places = folder, plan, data, places
        self.made = {c.name: c for c in made}

    def train(self, place: Any, run: Run, begin: int, until: int) -> search_run.Trained:
        """Train a run from its last rung, or from the beginning, to an epoch."""
        folder = record.folder_of(self.folder, run)
        if begin:
            self._restore(folder, begin)
        else:
            record.clear(self.folder, run)
        task = {
            "folder": str(folder), "argv": self._arguments(folder, run, begin), "data": self.data,
            "imgsz": self.plan.arguments["imgsz"], "until": until, **running.about(self.folder, self.plan, run),
        }  # fmt: skip
        outcome = working.attempt(place, self.folder, folder, task)
        if outcome.result is None:
            return search_run.Trained(None, 0.0, outcome.reason)
        if until < self.plan.epochs:
            _copy(folder / "weights" / "last.pt", _checkpoint(folder, until))
        return search_run.Trained(figure(folder / "results.csv", until), float(outcome.result["seconds"]))

    def _arguments(self, folder: Path, run: Run, begin: int) -> list[str]:
        if not begin:
            return running.arguments(self.folder, self.plan, run, self.data)
        argv = ["--host", self.plan.host, "--resume", str(folder / "weights" / "last.pt"), "--no-export"]
        argv += ["--seed", str(run.seed), "--project", str(folder.parent)]
        argv += ["--data", self.data] if self.plan.host == "ultralytics" else []
        return [*argv, *(word for file in self.plan.plugins for word in ("--plugin", file))]

    def _restore(self, folder: Path, begin: int) -> None:
        """Go back to the end of a rung: what a killed process did beyond it is done again, from the same state."""
        held = _checkpoint(folder, begin)
        if not held.is_file():
            raise FileError(f"{held}: is missing, and the run cannot go on from its rung. Begin the search again in another folder")
        _copy(held, folder / "weights" / "last.pt")

    def confirm(self, configs: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Carry out the study that gives the verdict."""
        folder = self.folder / CONFIRMATION
        plan = replace(self.plan, configs={c: self.plan.configs[c] for c in configs}, seeds=tuple(seeds))
        planning.settle(folder, plan, [self.made[c] for c in configs])
        for file in (self.folder / "runs").glob("*/weights/rung-*.pt"):  # no rung is left to go on from
            file.unlink(missing_ok=True)
        running.carry_out(folder, plan, data=self.data, places=self.places, progress=False)  # the search shows its own
        rows, _ = close(folder)
        return rows

    # -- how far

    def epochs(self) -> int:
        """Epochs that are behind, of all runs."""
        folders = [*(self.folder / "runs").glob("*/"), *(self.folder / CONFIRMATION / "runs").glob("*/")]
        return sum(running.rows_of(f) for f in folders)

    def total(self, course: search_course.Course) -> float:
        """Epochs of the whole search, as far as that is known."""
        design = course.ledger.decision("design")
        return self.plan.epochs * (design["budget"] if design else len(self.made) / search_plan.FIRST)

    def told(self, course: search_course.Course) -> str:
        """What has finished, in words."""
        trials = course.ledger.trials()
        rungs = sum(len(t.values) for t in trials)
        confirmed = len(list((self.folder / CONFIRMATION / "runs").glob(f"*/{record.FILE}")))
        return f"rungs reached: {rungs}" + (f", confirming runs: {confirmed}" if confirmed else "")


def _checkpoint(folder: Path, epochs: int) -> Path:
    return folder / "weights" / f"rung-{epochs}.pt"


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as draft:
        shutil.copyfile(source, draft)


def figure(log: Path, until: int) -> float:
    """Return the best mAP50-95 that a host has logged up to an epoch; 0 where it has logged none."""
    rows = list(csv.DictReader(read_source(log).splitlines(), skipinitialspace=True))[:until]
    values = []
    for row in rows:
        named = {str(k).strip(): v for k, v in row.items()}
        text = next((named[n] for n in FIGURES if named.get(n)), None)
        try:
            value = float(text) if text is not None else math.nan
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            values.append(value)
    return max(values, default=0.0)
