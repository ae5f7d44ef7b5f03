"""Launch modules of the kit in processes of their own, which find the same modules as this one.

``python -m`` and ``python -c`` put the working directory first on the path. A user's folder may hold a `torch.py` or a
`random.py`, which this process never looked at and which must not become part of one that it launches.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["HOME", "command", "environment", "search_path"]

HOME = str(Path(__file__).resolve().parents[2])
INSTALLED = ("site-packages", "dist-packages")

PATH = "YOLO_ATTN_PATH"  # not PYTHONPATH, which a Python of another version would take for its own, such as a tool of a tracker

# As `python -m`. Nothing but what every Python has imported by then is imported before the working directory is off the
# path: its place is taken by a second mention of the first entry, since `yolo-attn run` puts a script's folder there.
LAUNCH = """
import os, sys
path = os.environ["{variable}"].split("\\n")
sys.path[:] = [path[0], *path]
import runpy
runpy.run_module("{module}", run_name="__main__", alter_sys=True)
"""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with arguments; it needs :func:`environment`."""
    return [sys.executable, "-c", LAUNCH.format(module=module, variable=PATH), *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process that :func:`command` launches.

    Args:
        more: Variables to add.
    """
    env = {**os.environ, **(more or {}), PATH: "\n".join(search_path())}
    if os.path.basename(HOME) not in INSTALLED:  # a bare checkout, which the workers that a host launches have to find as well
        theirs = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
        env["PYTHONPATH"] = os.pathsep.join([*theirs, *([HOME] if HOME not in theirs else [])])
    return env


def search_path() -> list[str]:
    """Return this process's search path, absolute, with the kit's own folder: a bare checkout may be on nobody's."""
    path = [os.path.abspath(p) for p in sys.path if isinstance(p, str)]
    return path if HOME in path else [*path, HOME]
