"""Options that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FileError, UsageError, shown
from ..files import expand
from ..model_yaml.reader import value_of

if TYPE_CHECKING:
    from ..runtime.session import Detector

__all__ = ["add_runtime", "check_place", "pair", "pairs", "size_for"]


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add the options by which exported files are opened, each of :class:`yolo_attn.runtime.session.Detector`."""
    parser.add_argument("--runtime", default="auto", metavar="NAME", help="each file's own (default); opencv for ONNX files")
    parser.add_argument(
        "--provider", default="auto", metavar="NAME", help="onnxruntime provider: auto (default), cpu, cuda, ..."
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads of the runtime (default: of most, one for each physical core)"
    )
    parser.add_argument(
        "--unproved", action="store_true", help="run also a file that changed since it was proved, or that differs from PyTorch by its report"
    )


def check_place(file: str | None) -> None:
    """Refuse a file whose folder does not exist, before what shall be written into it takes its time.

    Raises:
        FileError: The message names the folder.
    """
    if file and not (folder := expand(file).parent).is_dir():
        raise FileError(f"{file}: cannot be written: there is no folder {folder} (looked in {Path.cwd()})")


def pair(text: str) -> tuple[str, Any]:
    """Return the name and the value of ``KEY=VALUE``.

    Raises:
        UsageError: It is not of this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--args takes KEY=VALUE, got {text!r}")
    return key.strip(), value_of(value, f"--args {shown(text)[1:-1]}", UsageError)


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Return the mapping of several ``KEY=VALUE``.

    Raises:
        UsageError: One is not of this form.
    """
    return dict(map(pair, texts))


def size_for(wanted: Sequence[int] | None, detector: Detector) -> tuple[int, int] | None:
    """Return the height and width in pixels that ``--imgsz`` asks of an exported detector; None where it asks nothing.

    Raises:
        UsageError: It is no size, or the file has another one.
    """
    if wanted is None:
        return None
    if len(wanted) > 2 or min(wanted) < 1:
        raise UsageError(f"--imgsz takes one side, or height and width, in pixels, got {list(wanted)}")
    pair, fixed = (wanted[0], wanted[-1]), detector.size
    if fixed is not None and pair != fixed:
        raise UsageError(
            f"{detector.path}: accepts {fixed[0]}x{fixed[1]} only, but --imgsz is {pair[0]}x{pair[1]}. Export it with --dynamic."
        )
    from ..runtime.image import round_up

    return round_up(pair, detector.stride)
