"""`yolo-attn insert`: write a model YAML with attention in it, or take it out again."""

from __future__ import annotations

import argparse
import difflib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from .. import words
from ..errors import ConfigError, FileError, UsageError, shown
from ..files import read_text, write_text
from ..log import announce
from ..model_yaml import config
from ..model_yaml.placement import PLACES, insert, remove
from ..model_yaml.reader import value_of
from ..registry.plugins import resolve
from ..system.console import write_out

_SCALES = re.compile(r"^scales:", re.MULTILINE)
_SCALE = re.compile(r"^scale: \w+ # of the file that this was made from\r?\n", re.MULTILINE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("cfg", metavar="YAML", help="a model's name (yolov5s.yaml, yolov8n, ...) or file")
    add("--module", metavar="NAME", help="the attention; 'yolo-attn list' shows them; or FILE.py:Class")
    add(
        "--after",
        nargs="+",
        action="extend",
        default=[],
        metavar="TYPE|ROW",
        help="behind rows of these types (C3) or these row numbers",
    )
    add(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="PLACE",
        help=f"one or more of {', '.join(PLACES)}\n(other levels likewise; inside-neck, inside-P4, ...)",
    )
    add("--start", choices=("identity", "paper"), help="identity: every gate begins at 1, the model as without it")
    add("--args", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options, e.g. reduction=8")
    add("--remove", action="store_true", help="take out what insert marked (with --module: all rows of this one)")
    add("--all", action="store_true", help="with --remove: all attention, also what was written by hand")
    add("-o", "--output", metavar="FILE", help="write here; without it, the YAML goes to standard output")
    add("--force", action="store_true", help="overwrite FILE")
    add("--dry-run", action="store_true", help="show the difference and write nothing")


def run(args: argparse.Namespace) -> int:
    """Insert or remove, then write, print or show the difference."""
    with words.command_line():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    where = [p for w in args.where for p in w.split(",") if p]
    after = [a for x in args.after for a in x.split(",") if a]
    if args.module:
        args.module, given = resolve(args.module), args.module
        if given != args.module:
            file = given.rpartition(":")[0]
            announce("the rows name %s of %s: give --plugin %s with them, or write it under 'register:'", args.module, file, file)
    if args.remove:
        if where or after or args.start or args.args:
            raise UsageError(
                "--remove takes attention out wherever it is; of the other options only --module and --all fit"
            )
        text = remove(args.cfg, args.module, all=args.all)
    else:
        if args.all:
            raise UsageError("--all goes with --remove; --where names the places that attention goes to")
        if not args.module:
            raise UsageError("say which attention: --module NAME ('yolo-attn list' shows them)")
        text = insert(
            args.cfg,
            args.module,
            after=after,
            where=where,
            start=args.start,
            args=dict(map(_pair, args.args)),
        )
    path = config.require(args.cfg)
    before = read_text(path, ConfigError, mark=True)
    text = _keep_scale(text, args)
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


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--args takes KEY=VALUE, got {text!r}")
    return key.strip(), value_of(value, f"--args {shown(text)[1:-1]}", UsageError)


def _keep_scale(text: str, args: argparse.Namespace) -> str:
    """Let `yolov5s.yaml` stay the s model under a file name without scale letter; `--remove` undoes it."""
    text = _SCALE.sub("", text)
    letter = config.split_scale(Path(args.cfg).stem)[1]
    found = _SCALES.search(text)
    if args.remove or not args.output or not letter or found is None or "\nscale:" in text:
        return text
    if config.split_scale(Path(args.output).stem)[1]:
        return text
    newline = "\r\n" if "\r\n" in text else "\n"
    line = f"scale: {letter} # of the file that this was made from{newline}"
    return text[: found.start()] + line + text[found.start() :]


def _summary(before: str, after: str) -> str:
    def rows(text: str) -> list[list[Any]]:
        d = yaml.safe_load(text)
        return [*d["backbone"], *d["head"]]

    old, new = rows(before), rows(after)
    # Attention inside leaves a row where it was, under another name: what is there as often, no more, no less.
    blocks = sum((Counter(r[2] for r in new) - Counter(r[2] for r in old)).values()) - max(len(new) - len(old), 0)
    words = []
    if len(new) != len(old):
        words.append(f"{abs(len(new) - len(old))} rows {'more' if len(new) > len(old) else 'fewer'}")
    if blocks:
        words.append(f"{blocks} blocks changed")
    return ", ".join([*words, f"{len(new)} rows"]) if words else "nothing changed"
