"""`yolo-attn run script.py ...`: any Python script, with the hosts hooked first.

What `python script.py ...` would see is what the script sees: ``sys.argv``, ``sys.path[0]``, ``__main__``. It also
works under a launcher: ``torchrun --nproc_per_node 2 -m yolo_attn run train.py ...``.

In front of the script, for the training that it starts: ``--start identity`` lets attention begin as no attention,
``--freeze base:K`` trains attention and head alone for K epochs, ``--lr-new F`` gives attention F times the learning
rate of the rest.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from ..errors import FileError, UsageError
from ..model_yaml import config
from ..training import schedule

USAGE = (
    "usage: yolo-attn run [--plugin FILE ...] [--start identity] [--freeze base[:K]] [--lr-new F] "
    "SCRIPT [arguments of the script ...]"
)
OPTIONS = """in front, for what is started:
  --plugin FILE      a Python file with attention of your own; may be repeated
  --start identity   attention begins as no attention; paper: as its authors say
  --freeze base[:K]  all but attention and head keep still for K epochs
  --lr-new F         learning rate of attention relative to the rest"""


def run(argv: list[str]) -> int:
    """Run the script; its own exceptions and exit codes pass through.

    Raises:
        UsageError: No script, or none that exists.
        PluginError: A plug-in cannot be loaded.
    """
    plugins, argv = leading_options(argv, USAGE)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{OPTIONS}" if argv else USAGE)
        return 0 if argv else 2
    if argv[0].startswith("-"):
        raise UsageError(f"'{argv[0]}' is no option. {USAGE}")
    script = Path(argv[0])
    if not script.is_file():
        raise FileError(f"no such script: {script} (looked in {Path.cwd()}). {USAGE}")

    from ..hook.install import installed, repair

    repair()
    if plugins:
        from ..registry.plugins import load_file

        for file in plugins:
            load_file(file)
    # The checkouts' own switch; the kit's command line never lets a host install packages.
    os.environ.setdefault("YOLOv5_AUTOINSTALL", "false")
    sys.argv = [str(script), *argv[1:]]
    folder = str(script.resolve().parent)
    if getattr(sys.flags, "safe_path", False) or not sys.path:
        sys.path.insert(0, folder)
    else:
        sys.path[0] = folder
    if script.name == "yolo.py" and script.resolve().parent.name == "models":
        from ..hook.main_script import run_parser
        from ..kit import KIT

        if run_parser(script, KIT):
            return 0
    from ..patches.yolov5_dated import exporter

    with exporter(script), _whole_checkpoints(script):
        runpy.run_path(str(script), run_name="__main__")
    if any(host.startswith("yolov5") for host in installed()):
        schedule.check_followed()
    return 0


def _whole_checkpoints(script: Path) -> contextlib.AbstractContextManager[None]:
    """Let YOLOv5's training, which overwrites its checkpoints in place, write each whole or not at all."""
    if script.name != "train.py" or not (script.resolve().parent / "models" / "yolo.py").is_file():
        return contextlib.nullcontext()
    import torch

    from ..training.runs import whole_checkpoints

    return whole_checkpoints(torch)


def leading_options(argv: list[str], usage: str) -> tuple[list[str], list[str]]:
    """Take the kit's own options off the front of a command line that is handed on.

    What they ask of a training goes into the environment, where the host's own workers find it too.

    Returns:
        The plug-in files, which the caller loads once the hosts are hooked, and the rest of the command line.

    Raises:
        UsageError: An option without its value, or with one that makes no sense.
    """
    plugins: list[str] = []
    asked: dict[str, Any] = {}
    while argv and argv[0].partition("=")[0] in ("--plugin", "--start", "--freeze", "--lr-new"):
        option, equals, value = argv[0].partition("=")
        if not equals and len(argv) < 2:
            raise UsageError(f"{option} needs a value. {usage}")
        value = value if equals else argv[1]
        argv = argv[1 if equals else 2 :]
        if option == "--plugin":
            plugins.append(value)
        elif option == "--start":
            config.ask_start(value)
        elif option == "--freeze":
            asked["freeze_base"] = schedule.frozen_epochs(value)
            if asked["freeze_base"] is None:
                raise UsageError(f"--freeze in front takes base or base:K, K epochs, got {value!r}. {usage}")
        else:
            asked["lr_new"] = _number(value, usage)
    if asked:
        schedule.ask(**asked)
    return plugins, argv


def _number(text: str, usage: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--lr-new takes a factor, got {text!r}. {usage}") from None
