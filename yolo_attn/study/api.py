"""`yolo_attn.compare(...)`: a study from Python, and what the command line calls."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from ..errors import ConfigError, DataError, UsageError, YoloAttnError
from ..files import expand
from ..training.options import split_commas
from . import candidates as making
from . import plan as planning
from . import report
from . import run as running
from .closing import close
from .jobs_where import Ray, as_cluster, check_places, places

Names = Union[str, Sequence[str], None]


class Study:
    """A study that is ready to go on: its folder holds the plan.

    Args:
        folder: Of the study.
        plan: What it does.
        data: The data set's YAML.
    """

    def __init__(self, folder: Path, plan: planning.Plan, data: str) -> None:
        self.folder, self.plan, self.data = folder, plan, data
        self.page: Path | None = None  # of the report, once it is written

    def carry_out(
        self, *, device: str = "", jobs: int | None = None, ray: Ray | None = None, lang: str = "en"
    ) -> list[dict[str, Any]]:
        """Train what is not trained yet, write the report in `lang`, and return one row a config; see :func:`compare`."""
        report.check_language(lang)
        with places(self.plan.host, device, jobs, ray) as found:
            running.carry_out(self.folder, self.plan, data=self.data, places=found)
        rows, self.page = close(self.folder, lang)
        return rows


def compare(
    cfgs: Sequence[str] = (),
    *,
    base: str = "",
    attention: Names = None,
    where: Names = None,
    start: Names = None,
    data: str = "",
    epochs: int | None = None,
    seeds: int = 3,
    weights: str = "",
    imgsz: int | None = None,
    batch: int | None = None,
    device: str = "",
    host: str = "ultralytics",
    jobs: int | None = None,
    ray: str | bool | Ray | None = None,
    lang: str = "en",
    output: str | os.PathLike[str] = "study",
    plugins: Sequence[str] = (),
    **arguments: Any,
) -> Any:
    """Does attention help here? Train several configs with several seeds and say what can be said.

    The study is a folder; the same call goes on with it after an interruption.

    Args:
        cfgs: Model YAMLs, the first one the baseline; ``YAML:paper`` and ``YAML:identity`` set a start.
        base: Instead of `cfgs`: the baseline that each of `attention` is put into.
        attention: Names of modules.
        where: Places of attention, each tried for itself; ``backbone+neck`` is both at once. ``neck`` by default.
        start: ``identity`` and ``paper``, each tried for itself.
        data: The data set's YAML; the embedded data set when empty.
        epochs: Of each run.
        seeds: Each config is trained with the seeds 0, 1 and so on.
        weights: What all begin from.
        imgsz: Side of the images in pixels.
        batch: Images a step.
        device: As the hosts take it; with several, ``0,1``, each takes a run, and ``0+1`` are both for one run (DDP).
        host: ``ultralytics``, ``yolov5``, or the folder of a YOLOv5 checkout.
        jobs: Trainings at a time; one on each device when absent.
        ray: Train in a Ray cluster: its address, True for that of the environment or a new one on this machine, or
            a :class:`Ray`, which says how much of it each run takes.
        lang: Of the report that is written into the study's folder, ``en`` or ``zh``.
        output: The folder of the study.
        plugins: Files of attention of your own.
        arguments: Further arguments of the host, such as ``lr0=0.01``.

    Returns:
        A pandas ``DataFrame`` with one row a config, or a list of dictionaries where pandas is not installed: the
        figures, and for all but the baseline ``difference`` of mAP50-95, its 95 % interval over seeds ``low`` to
        ``high`` (of this config alone, not of all at once), ``p``, ``holm`` (corrected for the number of configs),
        ``verdict``, ``seeds_to_tell``, and the interval over images of one seed, ``images_low`` to ``images_high``. The
        study's folder then holds ``report.html``, ``report.md``, ``ablation.tex`` and ``figures/``.

    Raises:
        YoloAttnError: A config that does not exist or cannot be built, data that cannot be used, a folder that holds
            another plan, a full disk. A run that fails is no error: its row says so.
    """
    check_places(str(device), jobs, as_cluster(ray))
    report.check_language(lang)
    study = prepare(
        cfgs, base=base, attention=listed(attention), where=listed(where), starts=listed(start), data=data, epochs=epochs,
        seeds=seeds, weights=weights, imgsz=imgsz, batch=batch, host=host, output=output, plugins=plugins,
        arguments=arguments,
    )  # fmt: skip
    found = study.carry_out(device=str(device), jobs=jobs, ray=as_cluster(ray), lang=lang)
    try:
        import pandas
    except ImportError:
        return found
    return pandas.DataFrame(found)


def listed(given: Names) -> list[str]:
    return split_commas([given] if isinstance(given, str) else given or [])


def prepare(
    cfgs: Sequence[str],
    *,
    base: str = "",
    attention: Sequence[str] = (),
    where: Sequence[str] = (),
    starts: Sequence[str] = (),
    data: str = "",
    epochs: int | None = None,
    seeds: int = 3,
    weights: str = "",
    imgsz: int | None = None,
    batch: int | None = None,
    host: str = "ultralytics",
    output: str | os.PathLike[str] = "study",
    plugins: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Study:
    """Check everything that can be checked before a training, and write the plan; arguments as for :func:`compare`."""
    from ..registry.plugins import load_file

    require()
    for file in plugins:
        load_file(file)
    if bool(cfgs) == bool(base):
        raise UsageError("name the configs (--cfgs BASE.yaml OTHER.yaml ...), or a base and --attention; not both, not none")
    made = making.from_names(cfgs, starts) if cfgs else making.from_grid(base, attention, where, starts)
    plan, used = checked(
        made, data=data, epochs=epochs, seeds=planning.check_seeds(seeds), weights=weights, imgsz=imgsz, batch=batch, host=host,
        plugins=plugins, arguments=arguments,
    )  # fmt: skip
    folder = Path(os.path.abspath(expand(output)))
    planning.settle(folder, plan, made)
    check_built(made, folder, plan.host)
    return Study(folder, plan, used)


def checked(
    made: Sequence[making.Candidate],
    *,
    data: str,
    epochs: int | None,
    seeds: Sequence[int],
    weights: str,
    imgsz: int | None,
    batch: int | None,
    host: str,
    plugins: Sequence[str],
    arguments: Mapping[str, Any] | None,
) -> tuple[planning.Plan, str]:
    """Return the plan of these configs, and the data set's YAML; what they train with is checked."""
    from ..evaluation import dataset
    from ..training import shapes
    from ..training.options import EMBEDDED, YOLOV5

    given = dict(arguments or {})
    default: Mapping[str, Any] = YOLOV5 if data else EMBEDDED
    given["imgsz"] = imgsz or given.get("imgsz") or default["imgsz"]
    given["batch"] = batch or given.get("batch") or default["batch"]
    given.setdefault("patience", 0)  # the same budget for all
    epochs = epochs or int(given.pop("epochs", 0) or default["epochs"])
    if epochs < 1:
        raise UsageError(f"--epochs must be at least 1, got {epochs}")
    if "seed" in given:
        raise UsageError("the seeds are chosen here, and 'seed=' is not taken")
    where_data = str(expand(data).resolve()) if data and expand(data).is_file() else data
    used = where_data or str(shapes.make())
    may_fetch = dataset.check(used, single_cls=bool(given.get("single_cls")))
    host = _host(host, given, may_fetch)
    plan = planning.of(
        made,
        host=host,
        data=where_data,
        data_sha256=planning.hash_data(used),
        weights=_weights(weights, host),
        weights_sha256=planning.hash_file(_weights(weights, host)),
        epochs=epochs,
        seeds=tuple(seeds),
        arguments=given,
        plugins=tuple(str(expand(f).resolve()) for f in plugins),
    )
    return plan, used


def check_built(made: Sequence[making.Candidate], folder: Path, host: str) -> None:
    """Build every config as the ultralytics host would.

    Raises:
        ConfigError: Some cannot be built; all of them are named.
    """
    problems = []
    for c in made if host == "ultralytics" else ():
        try:
            making.build(c, folder / "configs")
        except YoloAttnError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigError("; ".join(problems))


def require() -> None:
    try:
        import faster_coco_eval  # noqa: F401 # each is asked for here, before anything trains
        import scipy  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as exc:
        name = str(exc.name).partition(".")[0].replace("_", "-")
        raise YoloAttnError(f"comparing needs the package {name}: {exc}. 'pip install {name}'") from exc


def _host(host: str, given: Mapping[str, Any], may_fetch: bool) -> str:
    """Check the host, and that it takes what is given; return it, a checkout by its full path."""
    from ..training import checks

    if host == "ultralytics":
        checks.offline(may_fetch)
        checks.open_host(dict(given))
        return host
    from ..hook.checkout import find_host
    from ..training import host_imports
    from ..training.options import YOLOV5
    from .seeding import check_classic

    folder = find_host(host)
    host_imports.require(folder)
    check_classic(folder, int(given.get("workers", YOLOV5["workers"])))
    return "yolov5" if host == "yolov5" else str(folder)


@functools.lru_cache(maxsize=4)
def _weights(name: str, host: str) -> str:
    """Return the weights' file by its full path; a published name that the classic host fetches stays a name."""
    if not name or name.lower() in ("''", '""', "none"):
        return ""
    path = expand(name)
    if path.is_file():
        return str(path.resolve())
    if path.parent != Path("."):
        raise DataError(f"weights not found: {name} (looked in {Path.cwd()})")
    if host != "ultralytics":
        return name
    from ..weights.published import fetch

    return str(Path(fetch(name)).resolve())  # once, and not by every run for itself
