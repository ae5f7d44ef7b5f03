"""Core ML's ``model.mlpackage``: converted anywhere but on Windows, run by macOS and iOS alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .base import Format, Job, Need
from .host import by_ultralytics

__all__ = ["FORMAT"]


def convert(job: Job) -> Path:
    """Write ``model.mlpackage``."""
    with numbers_of_one():
        return by_ultralytics(job, "coreml")


@contextlib.contextmanager
def numbers_of_one() -> Iterator[None]:
    """Have coremltools take an array of one entry for a number, which NumPy 2.4 does not do any more.

    It folds what is computed from a shape into such arrays, and calls ``int`` on them.
    """
    from coremltools.converters.mil.frontend.torch import ops

    own = ops._cast

    def cast(context: Any, node: Any, dtype: type, dtype_name: str) -> None:
        x = ops._get_inputs(context, node, expected=1)[0]
        if np.ndim(x.val) and np.size(x.val) == 1:
            context.add(ops.mb.const(val=dtype(x.val.item()), name=node.name), node.name)
        else:
            own(context, node, dtype, dtype_name)

    ops._cast = cast
    try:
        yield
    finally:
        ops._cast = own


FORMAT = Format(
    "coreml",
    "Core ML",
    ".mlpackage",
    "coreml",
    (Need("coremltools", "coremltools", "8.0"),),
    convert,
    half=True,
    classic=False,
    parts=("Manifest.json", "Data"),
    where="macOS or iOS",
)
