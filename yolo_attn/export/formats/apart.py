"""Convert in a process of its own: compilers of networks print, install signal handlers, and crash.

The process is a new one (:mod:`.converter`), which is given the detector through a pipe. It is not a fork of this one:
threads of OpenVINO, of OpenMP or of a notebook do not exist in a fork, where others wait for them; and Windows and macOS
do not fork such a process at all.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import errors
from ...errors import ExportError
from ...log import announce
from ...system import launch
from . import converter
from .forked import forked
from .launched import converted
from .packed import packed
from .unanswered import last

__all__ = ["convert_apart"]

REMEDY = "Define it in a file of its own, and load that with --plugin FILE or yolo_attn.load_plugin"


def convert_apart(convert: Callable[..., Path], folder: Path, title: str, *given: Any) -> Path:
    """Run a conversion in a new process whose working directory is `folder`; return the path of the result.

    What a new process cannot import, such as a class that was defined in a notebook, is converted in a fork of this
    process; where processes do not fork, in this one, which is announced.

    Args:
        convert: Writes into the working directory, and returns a path below it.
        folder: An empty folder.
        title: What converts, for messages.
        given: Its arguments.

    Raises:
        ExportError: The conversion failed, or crashed; the message has its first line.
    """
    if converter.loading.is_set():  # a module that exports on import: each process would launch the next
        raise ExportError(f"{title} was asked for by a module that the process that converts imports. Export below its main guard")
    folder = folder.resolve()
    log = folder.with_name(folder.name + ".log")
    pieces, alone = packed(convert, given)
    answer: dict[str, Any] = {}
    if not alone:
        head = {"env": dict(os.environ), "path": launch.search_path(), "folder": str(folder), "log": str(log)}
        answer = converted(head, pieces, title, log)
        alone = answer.get("unready", "")
    if alone:
        call = functools.partial(convert, *given)
        if converter.FORKS:
            answer = forked(call, folder, log, title, f". It is a fork of this process, since {alone}; a fork lacks this process's threads. {REMEDY}")
        else:
            announce("%s runs in this process, since %s: if it crashes, this process ends. %s", title, alone, REMEDY)
            with converter.inside(folder):
                answer = converter.answer_of(call)
    if "error" in answer:
        kind = getattr(errors, answer["kind"], ExportError)
        raise kind(answer["error"])
    made = folder / answer["path"]
    if not made.exists() or (made.is_file() and not made.stat().st_size):
        raise ExportError(f"{title} reported success and wrote nothing{last(log)}")
    return made
