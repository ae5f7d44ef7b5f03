"""Convert a detector to a format, run the file in its runtime, and put it in its place with a report beside it."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...detectors.source import Source
from ...errors import ExportError
from ...files import publish, publish_folder
from ...runtime.child import Apart, Killed
from ...weights.attention import attention_in
from .. import report
from ..accuracy import Accuracy
from ..target import no_room, scratch_beside
from . import npu
from .apart import convert_apart
from .base import Format, Job, check_installed

__all__ = ["converted", "move", "placed", "write"]


def write(
    format: Format,
    job: Job,
    target: Path,
    attention: dict[str, int],
    *,
    images: list[Any] | None,
    tolerance: float | None,
    log: Callable[[str], Any],
    accuracy: Accuracy | None = None,
) -> dict[str, Any]:
    """Write a file of a format, prove it, and return its report.

    Args:
        format: The format.
        job: What to convert, and how.
        target: The place of the file or folder.
        attention: Registered name to count.
        images: BGR images to compare on; generated ones when absent.
        tolerance: Largest difference, relative to the scale of the output; by the precision when absent.
        log: Called with each line of progress.
        accuracy: Measures mAP of the file and of PyTorch.

    Raises:
        ExportError: A package is missing, the conversion failed, or the file differs from PyTorch.
        FileError: The file cannot be written.
    """
    versions = check_installed(format)
    source, precision = job.source, "fp16" if job.half else format.precision
    with scratch_beside(target) as folder:
        began = time.perf_counter()
        made = converted(format, job, folder)
        found = {
            **report.described(source, made, attention, versions),
            "bytes": format.bytes_of(made),
            "format": format.name,
            "imgsz": list(job.size),
            "dynamic": job.dynamic,
            "precision": precision,
            "nms": False,
            "seconds": {"export": round(time.perf_counter() - began, 2)},
        }
        shapes = "dynamic shapes" if job.dynamic else "x".join(map(str, job.size))
        log(f"{format.name}: {target} ({found['bytes'] / 1e6:.1f} MB, {shapes}, {precision})")
        if format.chips:
            found["npu"] = placed(format, job, folder)
            log(npu.told(found["npu"], attention))
        place = functools.partial(move, format)
        if not format.runtime:
            from .elsewhere import leave_proof

            leave_proof(format, job, made, target, found, images, tolerance, place, log)
            return found
        report.prove(
            made,
            found,
            source,
            images=images,
            tolerance=report.TOLERANCES[precision] if tolerance is None else tolerance,
            log=log,
            publish=place,
            target=target,
            failed=report.failed_name(target, format.suffix),
            opened=lambda: opened(format, made, source, found),
            accuracy=accuracy,
        )
    return found


def converted(format: Format, job: Job, folder: Path) -> Path:
    """Convert in a process of its own, below `folder`, and return the path of the file or folder.

    Raises:
        ExportError: The conversion failed.
    """
    work = folder / "work"
    work.mkdir()
    try:
        made = convert_apart(format.convert, work, f"{format.title}'s converter", job)
    except Killed as exc:
        raise Killed(f"{job.source.path}: the export to {format.name} was not finished: {exc}") from exc
    except ExportError as exc:
        room = no_room(folder)
        told = f"{str(exc).rstrip('.')}{room}" if room else str(exc)
        raise ExportError(f"{job.source.path}: the export to {format.name} failed: {told}") from exc
    # the runtimes tell a folder's kind by its name
    named = folder / f"draft{format.suffix}"
    made.rename(named)
    for path in [named, *named.rglob("*")]:  # a scratch folder is private to this user; what comes out of it is not
        path.chmod(_mode(0o777 if path.is_dir() else 0o666))
    return named


def placed(format: Format, job: Job, folder: Path) -> dict[str, Any] | None:
    """Return what the compiler of an NPU placed elsewhere, by what it printed while :func:`converted` ran below `folder`."""
    try:
        printed = (folder / "work.log").read_bytes().decode("utf-8", "replace")
    except OSError:  # where processes do not fork, it prints to the terminal
        return None
    return npu.placement(printed, job.chip or format.chips[0], list(attention_in(job.source.model)))


def _mode(wanted: int) -> int:
    """Return permissions as the umask leaves them."""
    import os

    mask = os.umask(0)
    os.umask(mask)
    return wanted & ~mask


@contextlib.contextmanager
def opened(
    format: Format, path: Path, source: Source, found: dict[str, Any]
) -> Iterator[tuple[Callable[[Any], list[Any]], str | None]]:
    """Open a file in a process of its own; yield a function from a batch to its outputs, and a detector's layout."""
    with Apart(path, format.runtime) as network:
        found["versions"][format.runtime] = network.version
        found["end2end"] = network.metadata.get("end2end") == "True"
        layout = None
        if source.task == "detect":
            layout = "final" if found["end2end"] else source.layout
        yield network, layout


def move(format: Format, draft: Path, target: Path) -> None:
    """Move a file, or a folder, to its place."""
    if draft.is_dir():
        publish_folder(draft, target, format.parts)
    else:
        publish(draft, target)
