"""`yolo-attn yolo ...`: the ultralytics command line in this process, hooked."""

from __future__ import annotations

import sys

from ..errors import HostError
from .run import OPTIONS, leading_options

USAGE = (
    "usage: yolo-attn yolo [--plugin FILE ...] [--start identity] [--freeze base[:K]] [--lr-new F] "
    "arguments of ultralytics' yolo command ..."
)


def run(argv: list[str]) -> int:
    """Hand the arguments over to the host's own entry point."""
    from ..parser import install, repair

    plugins, argv = leading_options(argv, USAGE)
    if argv in (["-h"], ["--help"], ["help"]):
        print(f"{USAGE}\n\n{OPTIONS}\n\nultralytics' own help:", flush=True)
        argv = ["help"]
    if plugins:
        from ..plugins import load_file

        for file in plugins:
            load_file(file)
    repair()
    sys.argv[:] = ["yolo", *argv]  # in place and first: the host keeps the list that it finds at import
    try:
        from ultralytics import utils
        from ultralytics.cfg import entrypoint
    except ImportError as exc:
        raise HostError(f"the ultralytics package cannot be imported: {exc}. 'pip install ultralytics'") from exc
    install(strict=True)
    kept = getattr(utils, "ARGV", sys.argv)  # another list where the host was imported before `sys.argv` was replaced
    before = list(kept)
    kept[:] = sys.argv
    try:
        entrypoint()
    finally:
        if kept is not sys.argv:
            kept[:] = before
    return 0
