"""`yolo-attn compare`: does attention help here? Several configs, several seeds, and a verdict."""

from __future__ import annotations

import argparse
import json

from .. import words
from ..errors import UsageError
from ..model_yaml.places import PLACEMENTS
from ..training.options import split_commas
from ._study import cluster, host_arguments, training

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
    training(parser)
    add("-o", "--output", default="study", metavar="DIR", help="folder of the study (study)")
    add("--lang", default="en", metavar="LANG", help="of the report: en or zh (en)")
    add("--save-json", metavar="FILE", help="write the rows")
    add("--json", action="store_true", help="print the rows as JSON instead of tables")
    add("more", nargs="*", metavar="key=value", help="any further argument of the host")


def run(args: argparse.Namespace) -> int:
    """Train what is left of the study, print the table and the verdicts; 1 if a run failed."""
    with words.command_line():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..files import write_text
    from ..study import api, report, verdict
    from ..study.jobs_where import check_places
    from ._tables import grid

    ray = cluster(args, args.more)
    more = host_arguments(args, ("cfgs", "attention", "where", "start"))
    lists = {n: split_commas(getattr(args, n)) for n in ("attention", "where", "start")}
    if args.cfgs and (lists["attention"] or lists["where"]):
        raise UsageError("--attention and --where go with --base, which they are put into; --cfgs names whole models")
    check_places(args.device, args.jobs, ray)
    report.check_language(args.lang)
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
