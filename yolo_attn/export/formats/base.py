"""What a format is, and what a conversion is given."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ...detectors.source import Source
from ...errors import ExportError, UsageError
from ..deployment import numbers

__all__ = ["Format", "Job", "Need", "check_installed"]


@dataclass(frozen=True)
class Need:
    """A package that a conversion needs.

    Args:
        module: Its import name.
        package: Its name in the package index.
        least: The lowest version that works, or an empty string.
        below: The lowest version that does not work any more, or an empty string.
    """

    module: str
    package: str
    least: str = ""
    below: str = ""


@dataclass(frozen=True)
class Job:
    """One conversion; the working directory is an empty folder of its own.

    Args:
        source: The network.
        size: Height and width of the input, in pixels.
        dynamic: Make batch, height and width dynamic.
        half: Store weights in fp16.
        opset: ONNX opset, for formats that are made from ONNX; the host's when absent.
        pictures: BGR images on which int8 is calibrated; None for fp32 and fp16.
        chip: The processor that an NPU's format is for; the format's default when empty.
        proved: The fp32 file beside which int8 is made, proved.
    """

    source: Source
    size: tuple[int, int]
    dynamic: bool = False
    half: bool = False
    opset: int | None = None
    pictures: list[np.ndarray] | None = None
    chip: str = ""
    proved: Path | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the hosts write beside a network, for converters that are not the host's."""
        s = self.source
        return {
            "stride": s.stride,
            "task": s.task,
            "batch": 1,
            "imgsz": list(self.size),
            "names": s.names,
            "args": {"batch": 1, "dynamic": self.dynamic, "nms": False},
            "channels": 3,
            "end2end": False,
        }


@dataclass(frozen=True)
class Format:
    """A format to export to.

    Args:
        name: As in ``--format``.
        title: The runtime's name in messages.
        suffix: How the file, or the folder, is called behind the checkpoint's stem.
        extra: The extra of the kit that brings what it needs.
        needs: The packages.
        convert: Writes the file into the working directory and returns its path; runs in a process of its own.
        runtime: The runtime that proves it, a key of :data:`yolo_attn.runtime.engines.table.RUNTIMES`; empty if it
            runs on other machines only.
        half: Whether fp16 is offered.
        int8: Whether int8 is offered.
        int8_tasks: Whether that int8 is offered for other tasks than detection too.
        weights_only: Whether that int8 is of the weights alone, which needs no pictures to calibrate on.
        losses: Writes which layers lose most in int8 into the working directory, and returns the file's path; given the
            job, and the folder that `convert` worked in. None where that is not measured.
        dynamic: Whether dynamic shapes are offered.
        onnx: Whether it is made from ONNX, so that an opset can be chosen.
        classic: Whether detectors of classic YOLOv5 can be converted.
        precision: What it computes in where neither fp16 nor int8 is asked for.
        parts: Patterns of the names in a folder of this format.
        where: Where the file runs, for those that do not run here.
        chips: The processors to choose from, the default first; for NPUs, whose compiler prints what runs on the CPU.
        deployed: Pattern of the file in a folder that is deployed, where others are for the proof alone.
    """

    name: str
    title: str
    suffix: str
    extra: str
    needs: tuple[Need, ...]
    convert: Callable[[Job], Path]
    runtime: str = ""
    half: bool = False
    int8: bool = False
    dynamic: bool = False
    onnx: bool = False
    weights_only: bool = False
    int8_tasks: bool = False
    losses: Callable[[Job, Path], Path] | None = None
    classic: bool = True
    precision: str = "fp32"
    parts: tuple[str, ...] = field(default=())
    where: str = ""
    chips: tuple[str, ...] = ()
    deployed: str = ""

    def bytes_of(self, path: Path) -> int:
        """Return the size of what is deployed of a file or folder of this format."""
        files = path.rglob(self.deployed or "*") if path.is_dir() else [path]
        return sum(p.stat().st_size for p in files if p.is_file())


def check_installed(format: Format) -> dict[str, str]:
    """Return the versions of the packages that a format needs.

    Raises:
        ExportError: One is missing or too old; the message names the extra that brings it.
    """
    found, lacking = {}, []
    for need in format.needs:
        try:
            version = metadata.version(need.package)
        except metadata.PackageNotFoundError:
            version = ""
        if not version or importlib.util.find_spec(need.module.partition(".")[0]) is None:
            lacking.append(f"{need.package}, which is not installed")
        elif need.least and numbers(version) < numbers(need.least):
            lacking.append(f"{need.package} {need.least} or later, and {version} is installed")
        elif need.below and numbers(version) >= numbers(need.below):
            lacking.append(f"{need.package} below {need.below}, and {version} is installed")
        found[need.package] = version
    if lacking:
        raise ExportError(
            f'--format {format.name} needs {"; ".join(lacking)}. Install it by: pip install "yolo_attn[{format.extra}]"'
        )
    return found


def check_options(
    format: Format, *, half: bool, int8: bool, dynamic: bool, nms: bool, opset: bool = False, plain: bool = False
) -> None:
    """Refuse what a format does not offer; `plain` is a graph that is not simplified.

    Raises:
        UsageError: The message names the option.
    """
    asked = {"--half": half, "--int8": int8, "--dynamic": dynamic, "--nms": nms, "--opset": opset, "--no-simplify": plain}
    offered = {"--half": format.half, "--int8": format.int8, "--dynamic": format.dynamic, "--opset": format.onnx}
    for option, wanted in asked.items():
        if wanted and not offered.get(option):
            able = [o for o, yes in offered.items() if yes]
            rest = f", only {', '.join(able)}" if able else f", and none of {', '.join(o for o in offered if o != option)}"
            raise UsageError(f"--format {format.name} has no {option}{rest}")
    if half and int8:
        raise UsageError("--half and --int8 cannot be combined")
