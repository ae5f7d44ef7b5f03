"""Repairs for what NumPy, Pillow and torch have removed since YOLOv5 v6.0 to v7.0 and the ``yolov5`` package.

Without ``np.int``, ``np.float`` (removed in NumPy 1.24), ``np.trapz`` (2.4) and ``font.getsize`` (Pillow 10) these
versions fail in their first validation, with or without attention. NumPy itself is not changed: a module of the host
that uses such a name gets a NumPy that has it, as its own global ``np`` only.

The loss of v6.0 and v6.1 clamps integers with a float bound, which torch refuses since 1.11. v6.2 has an integer bound,
and so has the code that replaces it here.

``export.py`` was written for the exporter that torch selects with ``dynamo=False`` since 2.9, and so was ultralytics
before 8.3.215.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Callable

from .interface import Kit

__all__ = ["exporter", "first_exporter", "fix_loss", "font_with_size", "supply"]

DROPPED: dict[str, Any] = {"int": int, "float": float, "bool": bool, "object": object, "trapz": "trapezoid"}


class _Numpy(ModuleType):
    """NumPy with some of its removed names."""

    def __init__(self, numpy: ModuleType, names: dict[str, Any]) -> None:
        super().__init__(numpy.__name__, numpy.__doc__)
        self.__dict__.update(names, _numpy=numpy)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_numpy"], name)


def supply(kit: Kit, module: ModuleType) -> Callable[[], None] | None:
    """Give a module the removed names that its source uses.

    Args:
        kit: The kit.
        module: A module of the host.

    Returns:
        A function that undoes it, or None if there is nothing to do.
    """
    if module.__name__.endswith("utils.loss"):
        return fix_loss(module)
    numpy = module.__dict__.get("np")
    if not isinstance(numpy, ModuleType) or numpy.__name__ != "numpy" or isinstance(numpy, _Numpy):
        return None
    try:
        text = Path(module.__file__ or "").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    used = [n for n in DROPPED if re.search(rf"\bnp\.{n}\b", text) and not hasattr(numpy, n)]
    if not used:
        return None
    names = {n: getattr(numpy, DROPPED[n]) if isinstance(DROPPED[n], str) else DROPPED[n] for n in used}
    ours = module.__dict__["np"] = _Numpy(numpy, names)

    def undo() -> None:
        if module.__dict__.get("np") is ours:
            module.__dict__["np"] = numpy

    return undo


@contextlib.contextmanager
def exporter(script: Path) -> Iterator[None]:
    """Select torch's first exporter if a script is an ``export.py`` that does not select one itself."""
    try:
        text = script.read_text(encoding="utf-8") if script.name == "export.py" else ""
    except (OSError, ValueError):
        text = ""
    beside = (script.resolve().parent / "models" / "yolo.py").is_file()
    if not beside or "torch.onnx.export(" not in text or "dynamo" in text:
        yield
        return
    with first_exporter():
        yield


@contextlib.contextmanager
def first_exporter() -> Iterator[None]:
    """Let ``torch.onnx.export`` default to the exporter from before torch 2.9, unless the caller selects one."""
    import torch

    original = torch.onnx.export
    if "dynamo" not in inspect.signature(original).parameters:
        yield
        return
    torch.onnx.export = functools.wraps(original)(functools.partial(original, dynamo=False))
    try:
        yield
    finally:
        torch.onnx.export = original


def fix_loss(module: ModuleType) -> Callable[[], None] | None:
    """Give the loss of v6.0 and v6.1 the integer bound of v6.2.

    Args:
        module: ``utils.loss``.

    Returns:
        A function that undoes it, or None if there is nothing to do.
    """
    function = getattr(getattr(module, "ComputeLoss", None), "build_targets", None)
    try:
        text = Path(module.__file__ or "").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    fixed = re.sub(r"(\.clamp_\(0, )(gain\[[23]\])( - 1\))", r"\1int(\2)\3", text)
    if fixed == text or not isinstance(function, FunctionType):
        return None
    original = function.__code__
    path = original.co_filename
    untouched, code = (_method(compile(t, path, "exec", dont_inherit=True), function.__name__) for t in (text, fixed))
    if untouched != original or code is None:  # somebody else has changed it
        return None
    function.__code__ = code

    def undo() -> None:
        if function.__code__ is code:
            function.__code__ = original

    return undo


def _method(code: CodeType, name: str) -> CodeType | None:
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return next((c for c in inner if c.co_name == name), None) or next(
        (found for c in inner for found in [_method(c, name)] if found is not None), None
    )


def font_with_size(kit: Kit, original: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """Run the host's ``check_font`` and give a Pillow font the ``getsize`` that the host calls."""
    font = original(*given, **more)
    if hasattr(font, "getbbox") and not hasattr(font, "getsize"):
        font.getsize = lambda text: tuple(font.getbbox(text)[2:])
    return font
