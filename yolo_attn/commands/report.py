"""`yolo-attn report`: tables and figures of a study, or of training folders that anyone left."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import words
from ..errors import UsageError

EPILOG = """examples:
  yolo-attn report study                                  # a study of yolo-attn compare, finished or not
  yolo-attn report runs/train/exp runs/train/exp2 runs/train/exp3
  yolo-attn report runs/detect --data my.yaml --baseline yolov8n    # every training below runs/detect
  yolo-attn report base=exp base=exp2 se=exp3 se=exp4      # configs by names of your own
Trainings are grouped by what they say of themselves: model and seed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="a study, or training folders of either host; NAME=FOLDER names a config")
    add("--baseline", default="", metavar="CONFIG", help="what others stand beside (default: the first without attention)")
    add("--data", default="", metavar="YAML", help="data set to validate on (default: what each folder names)")
    add("--no-val", action="store_true", help="do not validate again: take the figures of the logs")
    add("--no-latency", action="store_true", help="do not measure ONNX latency")
    add("--device", default="", metavar="D", help="cpu, or a GPU's number, to validate on")
    add("--host", default="", metavar="DIR", help="YOLOv5 checkout that classic checkpoints need")
    add("--lang", default="en", metavar="LANG", help="en or zh (en)")
    add("-o", "--output", default="", metavar="DIR", help="where it is written (a study's own folder; else report)")
    add("--json", action="store_true", help="print the rows as JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Write the report, print its table and verdicts."""
    with words.command_line():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..files import expand
    from ..study import closing, plan, report, results, verdict
    from ..study.wording import Words
    from ._tables import grid

    report.check_language(args.lang)
    studies = [f for f in args.folders if (expand(f) / plan.FILE).is_file()]
    if studies and len(args.folders) > 1:
        raise UsageError(f"{studies[0]} is a study, of which a report is written alone; its trainings are in {studies[0]}/runs")
    if studies:
        for name, value in (("--baseline", args.baseline), ("--data", args.data), ("-o", args.output)):
            if value:
                raise UsageError(f"{name} is not taken with a study: its plan says it, and its report goes into its folder")
        found, page = closing.close(expand(studies[0]), args.lang, timed=not args.no_latency)
        notes = report.notes(results.of_folder(expand(studies[0])), Words("en"))
    else:
        found, page, notes = _of_folders(args)
    if args.json:
        print(json.dumps({"report": str(page), "notes": notes, "rows": found}, indent=2, ensure_ascii=False))
        return 0
    print(grid(*verdict.table(found)))
    if len(found) > 1:
        print(f"\nbeside {found[0]['config']}:")
        print("\n".join(verdict.lines(found)))
        print("\nintervals: 95 %, of each config alone; Holm's correction is over all configs, at 5 % together")
    if notes:
        print("\n" + "\n".join(f"- {n}" for n in notes))
    print(f"\nreport: {page}")
    return 0


def _of_folders(args: argparse.Namespace) -> tuple[list[dict[str, Any]], Path, list[str]]:
    from ..study import gathering, report, verdict
    from ..study.wording import Words

    results = gathering.gather(
        args.folders, report.folder(args.output or "report"), baseline=args.baseline, data=args.data, device=args.device,
        host=args.host, validate=not args.no_val, timed=not args.no_latency,
    )  # fmt: skip
    rows = verdict.judged(results)
    return rows, report.write(results, rows, args.lang), report.notes(results, Words("en"))
