"""`yolo-attn patch --diff models/yolo.py`: the parse hook as a diff of that file, for use without the run-time hook.

A patched file builds rows that name registered modules. The other features of the parse hook (the kit's YAMLs by name,
the other dialect, `register:`) stay active when the kit is imported, unless ``YOLO_ATTN_HOOK=0`` is set.
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
        "--diff", metavar="FILE", required=True, help="models/yolo.py or tasks.py, official, forked or vendored"
    )


def run(args: argparse.Namespace) -> int:
    """Print the diff: `yolo-attn patch --diff models/yolo.py | git apply`."""
    write_out(diff(Path(args.diff)))
    return 0


def diff(path: Path) -> str:
    """Return a minimal unified diff that adds the parse hook to `path`, for `git apply` at the repository's root.

    Raises:
        HostError: The file is missing, has no parser that can be patched, or is patched already.
    """
    source = read_text(path, HostError, mark=True)
    if ON_DISK in source:
        raise HostError(f"{path}: is patched already.")
    try:
        new = splice(source, "parse_model", ON_DISK)
        line = _after_imports(source)
    except SyntaxError as exc:
        raise HostError(f"{path}: line {exc.lineno} is not valid in this Python version: {exc.msg}") from exc
    except SpliceError as exc:
        raise HostError(f"{path}: no parser that can be patched: could not find {exc}.") from exc
    end = "\r\n" if "\r\n" in source else "\n"
    lines = _lines(new)  # the patch moves no line
    lines.insert(line, f"from {__name__.rpartition('.commands')[0]} import rows as {ON_DISK}{end}")
    name = _in_repository(path)
    changes = difflib.unified_diff(_lines(source), lines, f"a/{name}", f"b/{name}")
    return "".join(c if c.endswith("\n") else f"{c}\n\\ No newline at end of file\n" for c in changes)


def _lines(text: str) -> list[str]:
    """Split into lines as git does; `str.splitlines` also splits at form feeds."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _after_imports(source: str) -> int:
    """The number of the last line of the imports at the top of the file."""
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
