"""What `yolo-attn compare` and `yolo-attn search` take alike: how runs are trained, and where."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from ..errors import UsageError
from ..training import options

__all__ = ["cluster", "host_arguments", "training"]


def training(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training, and of where runs train."""
    add = parser.add_argument
    add("--weights", default="", metavar="PT", help="what all start from (default: from scratch)")
    add("--imgsz", type=int, metavar="N", help="pixels (default 640; 128 on the embedded data set)")
    add("--batch", type=int, metavar="N", help="images a step (default 16; 8 on the embedded data set)")
    add("--workers", type=int, metavar="N", help="data loader workers of each run (default 8)")
    _where_to_train(parser)
    add("--host", default="ultralytics", metavar="HOST", help="ultralytics, yolov5 (the package), or a checkout's path")


def host_arguments(args: argparse.Namespace, lists: Iterable[str]) -> dict[str, Any]:
    """Return the arguments for the host, and check the numbers of a training.

    Lists of words swallow the ``key=value`` behind them: it is taken out of them here.

    Args:
        args: The command line; its lists are changed.
        lists: Names of the options that take several words.

    Raises:
        UsageError: A number is below 1, or a word is no ``key=value``.
    """
    more: dict[str, Any] = {}
    for name in (*lists, "more"):
        kept = []
        for word in getattr(args, name):
            key, equals, _ = word.partition("=")
            if name == "more" or (equals and key.isidentifier()):
                more.update([options.pair(word)])
            else:
                kept.append(word)
        setattr(args, name, kept)
    for name in ("jobs", "epochs", "imgsz", "batch"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    if args.workers is not None:
        more["workers"] = args.workers
    return more


def _where_to_train(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where runs train."""
    add = parser.add_argument
    add("--device", default="", metavar="D", help="cpu, 0, or 0,1,2,3: each takes a run; 0+1 is one run on both (DDP)")
    add("--jobs", type=int, metavar="N", help="trainings at a time (default: one on each device)")
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="train in the Ray cluster at ADDRESS (default: that of RAY_ADDRESS,\nelse a new one on this machine)",
    )
    add("--ray-gpus", type=float, metavar="F", help="GPUs of a run, 0.5 for two runs on each (1 where there is any)")
    add("--ray-cpus", type=float, metavar="N", help="CPUs of a run (1)")


def cluster(args: argparse.Namespace, more: list[str]) -> Any:
    """Return the Ray cluster that is asked for, or None; a key=value that --ray has swallowed goes to `more`."""
    from ..study.jobs_where import Ray

    address = args.ray
    if address and "=" in address and address.partition("=")[0].isidentifier():
        more.append(address)
        address = ""
    if address is None and (args.ray_gpus is not None or args.ray_cpus is not None):
        raise UsageError("--ray-gpus and --ray-cpus say what a run takes of a cluster, and need --ray")
    return None if address is None else Ray(address, args.ray_gpus, 1 if args.ray_cpus is None else args.ray_cpus)
