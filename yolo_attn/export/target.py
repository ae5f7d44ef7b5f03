"""Where an exported file goes, and the size of its input: checked before anything is converted."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..detectors.source import Source
from ..errors import FileError, UsageError
from ..files import expand
from ..runtime.image import round_up
from ..system.drafts import scratch
from ..system.processes import OWNED
from .formats.table import FORMATS, suffix_of

__all__ = ["no_room", "scratch_beside", "size_of", "target_of"]

LEAST_ROOM = 64_000_000  # bytes; with less on the disk, want of it may be why a conversion failed


def target_of(source: Source, output: str | os.PathLike[str] | None, format: str) -> Path:
    """Return the output file, after checking that it can be written."""
    suffix = suffix_of(format)
    if output is None:
        folder = Path() if source.path.suffix in (".yaml", ".yml", "") else source.path.parent
        target = folder / (source.path.stem + suffix)
    else:
        target = expand(output)
        if target.is_dir() and not target.name.lower().endswith(suffix):
            target = target / (source.path.stem + suffix)
        elif not target.name.lower().endswith(suffix):
            raise UsageError(f"{target}: the name of a file of format '{format}' must end in {suffix}")
    kind = FORMATS.get(format)
    folders = kind is not None and bool(kind.parts)
    if target.exists() and target.is_dir() != folders:
        raise FileError(f"{target}: is in the way: it is {'no' if folders else 'a'} folder. Move it away, or choose another place.")
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch(folder):
            pass
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    except OSError as exc:
        raise FileError(
            f"{target}: cannot be written: {exc.strerror or exc}. Choose another with --output FILE."
        ) from exc
    return target


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary folder on the file system of `target`."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch(target.parent))
        except OSError as exc:
            raise FileError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
        yield folder


def no_room(folder: Path) -> str:
    """Return that a scratch folder has no room for files, where that is so: converters tell it in their own words, or crash."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_ROOM:
        place = next(p for p in folder.parents if not OWNED.fullmatch(p.name))
        return f". The disk of {place} has {free / 1e6:.0f} MB left: free some"
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if 0 <= most < LEAST_ROOM:
            return f". Files may have {most / 1e6:.2g} MB at most in this process (ulimit -f): raise that limit"
    return ""


def size_of(source: Source, imgsz: int | Sequence[int] | None, log: Callable[[str], Any]) -> tuple[int, int]:
    """Return height and width of the input, multiples of the stride; as trained when `imgsz` is absent."""
    if imgsz is None:
        wanted = list(source.imgsz)
    else:
        wanted = [imgsz] if isinstance(imgsz, int) else [int(v) for v in imgsz]
        if len(wanted) not in (1, 2) or min(wanted, default=0) < 1:
            raise UsageError(f"the image size must be one side, or height and width, in pixels, got {wanted}")
    return round_up((wanted[0], wanted[-1]), source.stride, log)
