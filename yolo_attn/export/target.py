"""Where an exported file goes, and the size of its input: checked before anything is converted."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..detectors.source import Source
from ..errors import FileError, UsageError
from ..files import expand, scratch
from ..runtime.image import round_up
from .formats.table import FORMATS, suffix_of

__all__ = ["scratch_beside", "size_of", "target_of"]


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


def size_of(source: Source, imgsz: int | Sequence[int] | None, log: Callable[[str], Any]) -> tuple[int, int]:
    """Return height and width of the input, multiples of the stride; as trained when `imgsz` is absent."""
    if imgsz is None:
        wanted = list(source.imgsz)
    else:
        wanted = [imgsz] if isinstance(imgsz, int) else [int(v) for v in imgsz]
        if len(wanted) not in (1, 2) or min(wanted, default=0) < 1:
            raise UsageError(f"the image size must be one side, or height and width, in pixels, got {wanted}")
    return round_up((wanted[0], wanted[-1]), source.stride, log)
