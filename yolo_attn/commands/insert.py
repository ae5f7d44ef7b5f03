"""`yolo-attn insert`: insert attention into a model YAML, or remove it."""

from __future__ import annotations

import argparse
import difflib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from .. import words
from ..errors import ConfigError, FileError, UsageError
from ..files import read_text, write_text
from ..log import announce
from ..model_yaml import find
from ..model_yaml.placement import PLACEMENTS, insert, remove
from ..registry.plugins import resolve
from ..system.console import write_out
from ._options import pairs

_SCALES = re.compile(r"^scales:", re.MULTILINE)
_SCALE = re.compile(r"^scale: \w+ # of the file that this was made from\r?\n", re.MULTILINE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("cfg", metavar="YAML", help="model YAML, by name or path, e.g. yolov5s.yaml")
    add("--module", metavar="NAME", help="attention module: a name from 'yolo-attn list', or FILE.py:Class")
    add(
        "--after",
        nargs="+",
        action="extend",
        default=[],
        metavar="TYPE|ROW",
        help="insert after rows of these types (C3) or these row numbers",
    )
    add(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="PLACE",
        help=f"one or more of {', '.join(PLACEMENTS)}\n(also other levels; inside-neck, inside-P4, ...)",
    )
    add(
        "--start",
        choices=("identity", "paper"),
        help="initial weights: identity (the outputs stay as without attention) or paper",
    )
    add(
        "--args",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the module, e.g. reduction=8",
    )
    add(
        "--remove",
        action="store_true",
        help="remove the rows that insert marked; with --module, all rows of that module",
    )
    add("--all", action="store_true", help="with --remove: also attention that was written by hand")
    add("-o", "--output", metavar="FILE", help="output file (default: standard output)")
    add("--force", action="store_true", help="overwrite FILE")
    add("--dry-run", action="store_true", help="print a diff and write nothing")


def run(args: argparse.Namespace) -> int:
    """Insert or remove, then write the YAML, print it or print the diff."""
    with words.command_line():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    where = [p for w in args.where for p in w.split(",") if p]
    after = [a for x in args.after for a in x.split(",") if a]
    if args.module:
        args.module, given = resolve(args.module), args.module
        if given != args.module:
            file = given.rpartition(":")[0]
            announce(
                "the rows use %s from %s: pass --plugin %s with the YAML, or add it under 'register:'",
                args.module,
                file,
                file,
            )
    if args.remove:
        if where or after or args.start or args.args:
            raise UsageError("--remove takes no placement or options: combine it with --module or --all only")
        text = remove(args.cfg, args.module, all=args.all)
    else:
        if args.all:
            raise UsageError("--all is an option of --remove; to insert, choose the placement with --where")
        if not args.module:
            raise UsageError("--module NAME is missing ('yolo-attn list' shows the names)")
        text = insert(
            args.cfg,
            args.module,
            after=after,
            where=where,
            start=args.start,
            args=pairs(args.args),
        )
    path = find.require(args.cfg)
    before = read_text(path, ConfigError, mark=True)
    text = _SCALE.sub("", text) if args.remove or not args.output else keep_scale(text, args.cfg, args.output)
    if args.dry_run:
        lines = difflib.unified_diff(
            before.splitlines(), text.splitlines(), str(path), args.output or "with attention", lineterm=""
        )
        write_out("\n".join(lines or [f"{args.cfg}: nothing would change"]) + "\n")
        return 0
    if not args.output:
        write_out(text)
        return 0
    out = Path(args.output)
    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"the output must be a .yaml file, got {out}")
    if out.exists() and not args.force:
        raise FileError(f"{out} exists. Choose another name, or add --force to overwrite it.")
    if not out.parent.is_dir():
        raise FileError(f"the folder {out.parent} does not exist")
    write_text(out, text)
    print(f"{out}: {_summary(before, text)}")
    return 0


def keep_scale(text: str, cfg: str, output: str) -> str:
    """Keep the scale of `yolov5s.yaml` under an output name without scale letter; `--remove` undoes it."""
    text = _SCALE.sub("", text)
    letter = find.split_scale(Path(cfg).stem)[1]
    found = _SCALES.search(text)
    if not letter or found is None or "\nscale:" in text or find.split_scale(Path(output).stem)[1]:
        return text
    newline = "\r\n" if "\r\n" in text else "\n"
    line = f"scale: {letter} # of the file that this was made from{newline}"
    return text[: found.start()] + line + text[found.start() :]


def _summary(before: str, after: str) -> str:
    def rows(text: str) -> list[list[Any]]:
        d = yaml.safe_load(text)
        return [*d["backbone"], *d["head"]]

    old, new = rows(before), rows(after)
    # Attention inside a block keeps the row and changes its module: count the changed names beyond the added rows.
    blocks = sum((Counter(r[2] for r in new) - Counter(r[2] for r in old)).values()) - max(len(new) - len(old), 0)
    words = []
    if len(new) != len(old):
        words.append(f"{abs(len(new) - len(old))} rows {'more' if len(new) > len(old) else 'fewer'}")
    if blocks:
        words.append(f"{blocks} blocks changed")
    return ", ".join([*words, f"{len(new)} rows"]) if words else "nothing changed"
