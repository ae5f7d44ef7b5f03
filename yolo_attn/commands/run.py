"""`yolo-attn run script.py ...`: run any Python script with the parse hook installed.

The script sees the ``sys.argv``, ``sys.path[0]`` and ``__main__`` of `python script.py ...`. This also works under a
launcher: ``torchrun --nproc_per_node 2 -m yolo_attn run train.py ...``.

Options before the script apply to the training in it: ``--start identity`` starts attention as the identity,
``--freeze base:K`` trains only attention and head for K epochs, ``--lr-new F`` multiplies the learning rate of
attention by F.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from ..errors import FileError, UsageError
from ..model_yaml import load
from ..training import runs, schedule

USAGE = (
    "usage: yolo-attn run [--plugin FILE ...] [--start identity] [--freeze base[:K]] [--lr-new F] "
    "SCRIPT [arguments of the script ...]"
)
OPTIONS = """options before it:
  --plugin FILE      Python file with your own attention modules; repeatable
  --start identity   initial weights of attention: identity (outputs as without it) or paper
  --freeze base[:K]  freeze all but attention and head, for the first K epochs
  --lr-new F         learning rate of attention, relative to the rest"""


def run(argv: list[str]) -> int:
    """Run the script; its exceptions and exit codes pass through.

    Raises:
        UsageError: An unknown option.
        FileError: The script does not exist.
        PluginError: A plug-in cannot be loaded.
    """
    plugins, argv = leading_options(argv, USAGE)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{OPTIONS}" if argv else USAGE)
        return 0 if argv else 2
    if argv[0].startswith("-"):
        raise UsageError(f"'{argv[0]}' is not an option. {USAGE}")
    script = Path(argv[0])
    if not os.path.isfile(script):  # unlike Path's, it takes a name that no disk does
        raise FileError(f"script not found: {script} (looked in {Path.cwd()}). {USAGE}")

    from ..hook.install import installed, repair

    repair()
    if plugins:
        from ..registry.plugins import load_file

        for file in plugins:
            load_file(file)
    # The checkouts' own switch: the command line never lets a host install packages.
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

    with exporter(script), runs.joined(), _whole_checkpoints(script):
        runpy.run_path(str(script), run_name="__main__")
    if any(host.startswith("yolov5") for host in installed()):
        schedule.check_followed()
    return 0


def _whole_checkpoints(script: Path) -> contextlib.AbstractContextManager[None]:
    """Make YOLOv5's training, which overwrites its checkpoints in place, write them atomically."""
    if script.name != "train.py" or not (script.resolve().parent / "models" / "yolo.py").is_file():
        return contextlib.nullcontext()
    import torch

    return runs.whole_checkpoints(torch)


def leading_options(argv: list[str], usage: str) -> tuple[list[str], list[str]]:
    """Parse the kit's own options at the front of a command line for another program.

    Options of training are stored in the environment, from which the host's worker processes read them too.

    Args:
        argv: The command line.
        usage: Appended to error messages.

    Returns:
        The plug-in files, which the caller loads once the parse hook is installed, and the rest of the command line.

    Raises:
        UsageError: An option lacks its value, or the value is not valid.
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
            load.ask_start(value)
        elif option == "--freeze":
            asked["freeze_base"] = schedule.frozen_epochs(value)
            if asked["freeze_base"] is None:
                raise UsageError(f"--freeze takes base or base:K (K epochs) here, got {value!r}. {usage}")
        else:
            asked["lr_new"] = _number(value, usage)
    if asked:
        schedule.ask(**asked)
    return plugins, argv


def _number(text: str, usage: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--lr-new takes a number, got {text!r}. {usage}") from None
