"""The checks in a process of their own: ``python -m yolo_attn.inside.check.child``, the task as one line on standard input.

A module may crash, hang, print or end its process. What it prints is dropped; each finding leaves as one line of JSON on
the pipe that standard output was. The process ends when standard input closes, which it does with its launcher.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
from typing import Any

from ...errors import YoloAttnError, one_line
from .verdict import FAILURE, Finding

__all__ = ["main"]


def main() -> int:
    """Make the checks of a task and return the exit code."""
    pipe = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # whatever prints, from Python or below it
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    faulthandler.enable(sys.stderr, all_threads=False)

    def tell(**words: Any) -> None:
        os.write(pipe, f"{json.dumps(words)}\n".encode())

    try:
        _check(task, tell)
    except YoloAttnError as exc:
        tell(error=str(exc), kind=type(exc).__name__)
    except KeyboardInterrupt:
        return 130
    except BaseException as exc:  # code at the top of the user's file can raise anything
        tell(error=f"{task['name']}: {type(exc).__name__}: {one_line(str(exc))[:300]}", kind="PluginError")
    return 0


def _check(task: dict[str, Any], tell: Any) -> None:
    import torch

    from ...registry.plugins import load_file
    from .order import BASIS, FIRST, skipped
    from .run import one
    from .subject import subject_of

    torch.set_num_threads(1)
    for file in task["plugins"]:
        load_file(file)
    s = subject_of(task["name"], task["options"], channels=task["channels"], device=task["device"])
    tell(file=s.sources.file, name=s.name)
    failed = list(task["failed"])
    for name in task["checks"]:
        found = skipped(name, failed)
        if found is None:
            tell(begin=name)
            faulthandler.dump_traceback_later(task["limit"] * 0.95, exit=False, file=sys.stderr)
            found = one(name, s)
            faulthandler.cancel_dump_traceback_later()
        if found.status == FAILURE and name in (*FIRST, *BASIS):
            failed.append(name)
        tell(finding=_short(found).as_json())


def _short(found: Finding) -> Finding:
    """Names and values out of a user's file may hold anything that moves a terminal's cursor."""
    from dataclasses import replace

    return replace(found, said=one_line(found.said)[:600], remedy=one_line(found.remedy))


def _end_with_launcher() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # threads and exit functions of the user's module do not hold it
