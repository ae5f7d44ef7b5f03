"""What NumPy, Pillow and torch have dropped since YOLOv5 v6.0 to v7.0 and the ``yolov5`` package were written.

``np.int``, ``np.float`` (gone from NumPy 1.24), ``np.trapz`` (2.4) and ``font.getsize`` (Pillow 10): without
them these versions die in their first validation, with attention or without. NumPy itself is left alone: a
host's module that uses such a name sees a NumPy that has it, under its own global ``np`` only.

The loss of v6.0 and v6.1 clamps whole numbers with a bound of type float, which torch refuses since 1.11; v6.2
wrote the bound as a whole number, and so does the code that stands in here.

``export.py`` was written for the exporter that torch calls by ``dynamo=False`` since 2.9, and so was ultralytics before
8.3.215.
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

__all__ = ["exporter", "first_exporter", "font_with_size", "mend_loss", "supply"]

DROPPED: dict[str, Any] = {"int": int, "float": float, "bool": bool, "object": object, "trapz": "trapezoid"}


class _Numpy(ModuleType):
    """NumPy with the names that it had."""

    def __init__(self, numpy: ModuleType, names: dict[str, Any]) -> None:
        super().__init__(numpy.__name__, numpy.__doc__)
        self.__dict__.update(names, _numpy=numpy)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_numpy"], name)


def supply(kit: Kit, module: ModuleType) -> Callable[[], None] | None:
    """Give `module` the dropped names that its text uses; return a function that takes them back, or None."""
    if module.__name__.endswith("utils.loss"):
        return mend_loss(module)
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
    """Where `script` is an `export.py` older than the choice of exporters, call the one that it was written for."""
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
    """Have `torch.onnx.export` be the exporter that it was before torch 2.9 chose another, unless its caller chooses."""
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


def mend_loss(module: ModuleType) -> Callable[[], None] | None:
    """Give the loss of v6.0 and v6.1 the whole-number bound of v6.2; return a function that takes it back, or None."""
    function = getattr(getattr(module, "ComputeLoss", None), "build_targets", None)
    try:
        text = Path(module.__file__ or "").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    mended = re.sub(r"(\.clamp_\(0, )(gain\[[23]\])( - 1\))", r"\1int(\2)\3", text)
    if mended == text or not isinstance(function, FunctionType):
        return None
    original = function.__code__
    path = original.co_filename
    untouched, code = (_method(compile(t, path, "exec", dont_inherit=True), function.__name__) for t in (text, mended))
    if untouched != original or code is None:  # somebody else's hand is in it
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
    """Run the host's `check_font`; a Pillow font comes back with the `getsize` that the host calls."""
    font = original(*given, **more)
    if hasattr(font, "getbbox") and not hasattr(font, "getsize"):
        font.getsize = lambda text: tuple(font.getbbox(text)[2:])
    return font
