"""`yolo-attn compare`: does attention help here? Several configs, several seeds, and a verdict."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import words
from ..errors import UsageError
from ..model_yaml.places import PLACEMENTS
from ..training import options

EPILOG = """examples:
  yolo-attn compare --cfgs yolov5n.yaml yolov5n_se.yaml yolov5n_eca.yaml --data my.yaml --epochs 50 --weights yolov5nu.pt
  yolo-attn compare --base yolov5n.yaml --attention SEAttention,ECA,CBAM --where backbone,neck --data my.yaml
  yolo-attn compare --cfgs yolov5n.yaml yolov5n_se.yaml                # the embedded data set
  yolo-attn compare --cfgs yolov5n.yaml yolov5n_se.yaml --device 0,1,2,3     # a run on each GPU
  yolo-attn compare --cfgs yolov5n.yaml yolov5n_se.yaml --data my.yaml --ray auto    # on all machines of a Ray cluster
The same command goes on with a study that was interrupted, and several of them share its runs."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--cfgs", nargs="+", default=[], metavar="YAML", help="model YAMLs, the first the baseline; YAML:paper sets a start")
    add("--base", default="", metavar="YAML", help="instead of --cfgs: the baseline that attention is put into")
    add("--attention", nargs="+", default=[], metavar="NAME", help="with --base: modules, each tried for itself")
    add(
        "--where",
        nargs="+",
        default=[],
        metavar="PLACEMENT",
        help=f"with --base: {', '.join(PLACEMENTS)} (default neck);\neach tried for itself, backbone+neck is both at once",
    )
    add("--start", nargs="+", default=[], metavar="START", help="identity, paper or both, each tried for itself")
    add("--data", default="", metavar="YAML", help="data set YAML (default: the embedded data set)")
    add("--epochs", type=int, metavar="N", help="of each run (default 100; 20 on the embedded data set)")
    add("--seeds", type=int, default=3, metavar="N", help="each config is trained with the seeds 0 to N-1 (3)")
    add("--weights", default="", metavar="PT", help="what all start from (default: from scratch)")
    add("--imgsz", type=int, metavar="N", help="pixels (default 640; 128 on the embedded data set)")
    add("--batch", type=int, metavar="N", help="images a step (default 16; 8 on the embedded data set)")
    add("--workers", type=int, metavar="N", help="data loader workers of each run (default 8)")
    where_to_train(parser)
    add("--host", default="ultralytics", metavar="HOST", help="ultralytics, yolov5 (the package), or a checkout's path")
    add("-o", "--output", default="study", metavar="DIR", help="folder of the study (study)")
    add("--lang", default="en", metavar="LANG", help="of the report: en or zh (en)")
    add("--save-json", metavar="FILE", help="write the rows")
    add("--json", action="store_true", help="print the rows as JSON instead of tables")
    add("more", nargs="*", metavar="key=value", help="any further argument of the host")


def where_to_train(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where runs train; those of `yolo-attn search` as well."""
    add = parser.add_argument
    add("--device", default="", metavar="D", help="cpu, 0, or 0,1,2,3: each takes a run; 0+1 is one run on both (DDP)")
    add("--jobs", type=int, metavar="N", help="trainings at a time (default: one on each device)")
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="train in the Ray cluster at ADDRESS (default: that of RAY_ADDRESS,\nelse a new one on this machine)",
    )
    add("--ray-gpus", type=float, metavar="F", help="GPUs of a run, 0.5 for two runs on each (1 where there is any)")
    add("--ray-cpus", type=float, metavar="N", help="CPUs of a run (1)")


def cluster(args: argparse.Namespace, more: list[str]) -> Any:
    """Return the Ray cluster that is asked for, or None; a key=value that --ray has swallowed goes to `more`."""
    from ..study.jobs_where import Ray

    address = args.ray
    if address and "=" in address and address.partition("=")[0].isidentifier():
        more.append(address)
        address = ""
    if address is None and (args.ray_gpus is not None or args.ray_cpus is not None):
        raise UsageError("--ray-gpus and --ray-cpus say what a run takes of a cluster, and need --ray")
    return None if address is None else Ray(address, args.ray_gpus, 1 if args.ray_cpus is None else args.ray_cpus)


def run(args: argparse.Namespace) -> int:
    """Train what is left of the study, print the table and the verdicts; 1 if a run failed."""
    with words.command_line():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..files import write_text
    from ..study import api, verdict
    from ..study.jobs_where import check_places
    from ._tables import grid

    ray = cluster(args, args.more)
    more: dict[str, Any] = {}
    for name in ("cfgs", "attention", "where", "start", "more"):  # lists of words swallow the key=value behind them
        kept = []
        for word in getattr(args, name):
            key, equals, _ = word.partition("=")
            if name == "more" or (equals and key.isidentifier()):
                more.update([options.pair(word)])
            else:
                kept.append(word)
        setattr(args, name, kept)
    for name in ("jobs", "epochs", "imgsz", "batch"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    if args.workers is not None:
        more["workers"] = args.workers
    lists = {n: [p for w in getattr(args, n) for p in w.split(",") if p] for n in ("attention", "where", "start")}
    if args.cfgs and (lists["attention"] or lists["where"]):
        raise UsageError("--attention and --where go with --base, which they are put into; --cfgs names whole models")
    check_places(args.device, args.jobs, ray)
    study = api.prepare(
        args.cfgs, base=args.base, attention=lists["attention"], where=lists["where"], starts=lists["start"],
        data=args.data, epochs=args.epochs, seeds=args.seeds, weights=args.weights, imgsz=args.imgsz, batch=args.batch,
        host=args.host, output=args.output, plugins=args.plugin, arguments=more,
    )  # fmt: skip
    found = study.carry_out(device=args.device, jobs=args.jobs, ray=ray, lang=args.lang)
    if args.save_json:
        write_text(args.save_json, json.dumps(found, indent=2) + "\n")
    failed = [f for row in found for f in row["failed"]]
    if args.json:
        print(json.dumps(found, indent=2))
        return 1 if failed else 0
    first = found[0]
    plan = study.plan
    seeds = "seed 0" if len(plan.seeds) == 1 else f"seeds 0 to {plan.seeds[-1]}"
    print(f"{study.folder}: {len(plan.configs)} configs, {seeds}, {plan.epochs} epochs")
    print(f"measured on '{first['split']}', {first['images']} images, with the weights of the epoch that was best on 'val'\n")
    print(grid(*verdict.table(found)))
    print(f"\nbeside {plan.baseline}:")
    print("\n".join(verdict.lines(found)))
    print("\nintervals: 95 %, of each config alone; Holm's correction is over all configs, at 5 % together")
    print(f"report: {study.page}")
    if failed:
        print(f"\n{len(failed)} failed; the same command tries them again:\n" + "\n".join(failed))
    return 1 if failed else 0
