"""`yolo-attn completion SHELL`: the completion script of a shell, made by shtab."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from ..files import read_source
from ..system.console import Parser, write_out

SHELLS = ("bash", "zsh", "fish", "powershell")
FOLDERS = {"DIR", "FOLDER", "RUN_DIR", "STUDY"}
PLAIN = {"N", "PLACE", "KEY=VALUE", "SEED", "NAME", "CHECK", "SECONDS"}  # what no file can complete


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("shell", choices=SHELLS, help="bash: source <(yolo-attn completion bash)")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    write_out(shtab.complete(whole(args.commands, args.parser_of), shell=args.shell) + "\n")
    return 0


def whole(commands: Mapping[str, str], parser_of: Callable[[str], Parser]) -> argparse.ArgumentParser:
    """Return one parser of all commands, with what completes each argument."""
    from ..training.options import parser as training

    root = argparse.ArgumentParser(prog="yolo-attn")
    sub = root.add_subparsers(dest="command", parser_class=argparse.ArgumentParser)
    for name, text in commands.items():
        if name in ("run", "yolo"):  # the rest of the line belongs to the script
            sub.add_parser(name, help=text)
            continue
        source = training() if name == "train" else parser_of(name)
        _complete(source)
        sub.add_parser(name, help=text, parents=[source], add_help=False)
    return root


def _complete(parser: Parser) -> None:
    """Say what completes each argument: names of modules, else files or folders where it takes one."""
    import shtab

    catalogue = json.loads(read_source(Path(__file__).with_name("catalog.json")))
    modules = sorted({n for row in catalogue for n in (row["name"], *row["aliases"])})
    for action in parser._actions:  # argparse offers no other way to list them
        if action.nargs == 0 or action.choices:
            continue
        metavar = str(action.metavar or "")
        if action.dest in ("module", "attention"):
            action.choices = modules
        elif metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined] # shtab's protocol
        elif metavar and metavar not in PLAIN:
            action.complete = shtab.FILE  # type: ignore[attr-defined] # shtab's protocol
