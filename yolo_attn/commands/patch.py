"""`yolo-attn patch --diff models/yolo.py`: the hook as a diff of that very file, for those who may not hook at run time.

A file that carries the two seams builds rows that name registered modules. What the run-time hook adds beside it (the
kit's YAMLs by name, the other dialect, `register:`) stays on when the kit is imported; ``YOLO_ATTN_HOOK=0`` in the
environment turns it off.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
from pathlib import Path

from ..errors import HostError
from ..files import read_text
from ..hook.splice import ON_DISK, SpliceError, splice
from ..system.console import write_out


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--diff", metavar="FILE", required=True, help="a models/yolo.py or tasks.py, official, forked or vendored"
    )


def run(args: argparse.Namespace) -> int:
    """Print the diff: `yolo-attn patch --diff models/yolo.py | git apply`."""
    write_out(diff(Path(args.diff)))
    return 0


def diff(path: Path) -> str:
    """Return the smallest unified diff that puts the two seams into `path`, for `git apply` at the repository's root.

    Raises:
        HostError: Not there, no parser that can be extended, or extended already.
    """
    source = read_text(path, HostError, mark=True)
    if ON_DISK in source:
        raise HostError(f"{path}: carries the seams already.")
    try:
        new = splice(source, "parse_model", ON_DISK)
        spot = _after_imports(source)
    except SyntaxError as exc:
        raise HostError(f"{path}: is no Python that this version reads: line {exc.lineno}: {exc.msg}") from exc
    except SpliceError as exc:
        raise HostError(f"{path}: no parser that can be extended: could not find {exc}.") from exc
    end = "\r\n" if "\r\n" in source else "\n"
    lines = _lines(new)  # no seam moves a line
    lines.insert(spot, f"from {__name__.rpartition('.commands')[0]} import rows as {ON_DISK}{end}")
    name = _in_repository(path)
    changes = difflib.unified_diff(_lines(source), lines, f"a/{name}", f"b/{name}")
    return "".join(c if c.endswith("\n") else f"{c}\n\\ No newline at end of file\n" for c in changes)


def _lines(text: str) -> list[str]:
    """The lines as git counts them; `str.splitlines` ends one at a form feed too."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _after_imports(source: str) -> int:
    """The line behind the last plain import at the top of the file."""
    found = 0
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            break
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found = node.end_lineno or node.lineno
    return found


def _in_repository(path: Path) -> str:
    path = path.resolve()
    root = next((p for p in path.parents if (p / ".git").exists()), Path.cwd())
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix().lstrip("/")
