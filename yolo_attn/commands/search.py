"""`yolo-attn search`: which attention, where, with which start, or none, within a budget."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import words
from ..model_yaml.places import PLACEMENTS
from ..training.options import split_commas
from ._study import cluster, host_arguments, training

EPILOG = """examples:
  yolo-attn search --base yolov5n.yaml --data my.yaml --budget 6h --epochs 50 --weights yolov5nu.pt
  yolo-attn search --base yolov8s.yaml --attention ECA,CBAM,SimAM --where backbone,neck --data my.yaml --budget 2d --device 0,1
  yolo-attn search --base yolov5n.yaml --budget 30runs                 # the embedded data set
The same command goes on with a search that was interrupted, and several of them share its trainings."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--base", default="yolov5n.yaml", metavar="YAML", help="the model that attention is put into (yolov5n.yaml)")
    add("--attention", nargs="+", default=[], metavar="NAME", help="modules to try (default: six small ones)")
    add(
        "--where",
        nargs="+",
        default=[],
        metavar="PLACEMENT",
        help=f"places to try: {', '.join(PLACEMENTS)}\n(default backbone and neck); backbone+neck is both at once",
    )
    add("--start", nargs="+", default=[], metavar="START", help="identity, paper or both (default)")
    add(
        "--budget",
        default="6h",
        metavar="TIME",
        help="training time of all runs together, 6h, 90m or 2d; or full trainings, 40runs\n(default 6h)",
    )
    add("--data", default="", metavar="YAML", help="data set YAML (default: the embedded data set)")
    add("--epochs", type=int, metavar="N", help="of a full training (default 100; 20 on the embedded data set)")
    training(parser)
    add(
        "--storage",
        default="sqlite",
        metavar="WHERE",
        help="where Optuna keeps the trials: sqlite (a file in DIR), journal (a file for\nnetwork folders), or the URL of a database",
    )
    add("-o", "--output", default="search", metavar="DIR", help="folder of the search (search)")
    add("--save-json", metavar="FILE", help="write the answer, and how it came to it")
    add("--json", action="store_true", help="print it instead of tables")
    add("more", nargs="*", metavar="key=value", help="any further argument of the host")


def run(args: argparse.Namespace) -> int:
    """Search, print what was found, and return 0, as "none" is an answer; 1 if a run of the confirmation failed."""
    with words.command_line():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..files import expand, write_text
    from ..study import search as searching
    from ..study import verdict
    from ._tables import grid

    ray = cluster(args, args.more)
    more = host_arguments(args, ("attention", "where", "start"))
    for name in ("attention", "where", "start"):
        setattr(args, name, split_commas(getattr(args, name)))
    found = searching.search(
        args.base, attention=args.attention, where=args.where, start=args.start, data=args.data, budget=args.budget,
        epochs=args.epochs, weights=args.weights, imgsz=args.imgsz, batch=args.batch, device=args.device, host=args.host,
        jobs=args.jobs, ray=ray, storage=args.storage, output=args.output, plugins=args.plugin, **more,
    )  # fmt: skip
    if args.save_json:
        write_text(args.save_json, json.dumps(found, indent=2) + "\n")
    broken = [line for row in found["confirmation"] for line in row.get("failed") or []]
    if args.json:
        print(json.dumps(found, indent=2))
        return 1 if broken else 0
    folder = expand(args.output)
    print(f"{folder}: {found['tried']} of {found['candidates']} candidates beside {found['base']}, "
          f"{found['spent']:.3g} of {found['budget']:.3g} full trainings\n")  # fmt: skip
    print(grid(*rungs(found)))
    if found["confirmation"]:
        print(f"\nconfirmation, with seeds that the search has not seen ({folder / searching.CONFIRMATION}):")
        print("\n".join(verdict.lines(found["confirmation"])))
    for line in found["failed"]:
        print(f"failed: {line}")
    if found["answer"] is None:
        print(f"\nanswer: none, as {found['why']}")
    else:
        c = found["choice"]
        print(f"\nanswer: {c['module']}, {c['where']}, {c['start']} start: {folder / 'configs' / found['answer']}.yaml")
    if broken:
        print("\nfailed in the confirmation; the same command tries them again:\n" + "\n".join(broken))
    return 1 if broken else 0


def rungs(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and cells of the table: who came how far, the best first."""
    head = ["config", *(f"epoch {r['until']}, {r['seed'] + 1} seed{'s' * (r['seed'] > 0)}" for r in found["rungs"])]
    order = sorted(
        {n for r in found["rungs"] for n in r["scores"]},
        key=lambda n: [-r["scores"].get(n, -1.0) for r in reversed(found["rungs"])],
    )
    body = [[found["base"], *(f"{r['base']:.3f}" for r in found["rungs"])]]
    return head, body + [[n, *(f"{r['scores'][n]:.3f}" if n in r["scores"] else "" for r in found["rungs"])] for n in order]
