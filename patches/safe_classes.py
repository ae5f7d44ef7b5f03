"""Declare an older host's layers safe for ``torch.load(weights_only=True)``, the default since torch 2.6.

The hosts pickle whole models. Classic YOLOv5 up to v7.0 and ultralytics before 8.2.64 load them with a plain
``torch.load(path)``, which is an error with torch 2.6 and later: a training fails in its last step, when it strips its
own checkpoint.

Declared are not the constructors but functions that return empty instances (``registry/safe.py`` of the kit), for layers
that only compute; and NumPy's plain number types, whose definitions a file cannot change.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import secrets
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Callable

from .interface import Kit

__all__ = ["READERS", "declare"]

# Modules of torch.nn that the hosts' layers consist of.
TORCH = """
    Sequential ModuleList ModuleDict Identity Conv1d Conv2d ConvTranspose2d Linear BatchNorm2d LayerNorm GroupNorm
    MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d Upsample Dropout Flatten ZeroPad2d MultiheadAttention SiLU
    ReLU ReLU6 LeakyReLU ELU GELU Mish Hardswish Hardsigmoid Sigmoid Tanh Softmax PReLU Softplus Hardtanh
    BCEWithLogitsLoss
"""
# Modules of the hosts that are not layers: built or run, they open files and URLs named by their arguments.
READERS = frozenset({"AutoShape", "DetectMultiBackend", "AutoBackend"})
NUMBERS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def declare(kit: Kit, module: ModuleType, beside: Iterable[str] = ()) -> Callable[[], None] | None:
    """Declare the layers of a host, and the other classes of its checkpoints.

    Args:
        kit: The kit.
        module: The parser's module, ``models.yolo`` or ``ultralytics.nn.tasks``.
        beside: Full names of further classes, whose attributes have no effect when they are set.

    Returns:
        A function that removes the declarations, or None if torch does not support them.
    """
    import torch

    if not kit.names_declarations():
        return None
    kit.load_modules()
    package = module.__name__.rpartition(".")[0]
    layers = {
        (c, f"{home.__name__}.{name}")
        for home in [
            m for n, m in list(sys.modules.items()) if n.startswith(f"{package}.") and isinstance(m, ModuleType)
        ]
        for name, c in vars(home).items()
        if isinstance(c, type) and issubclass(c, torch.nn.Module) and c.__module__ == home.__name__
        if c.__name__ not in READERS
    }
    for name in beside:
        home, _, cls = name.rpartition(".")
        with contextlib.suppress(ImportError, AttributeError):  # not in every version
            layers.add((getattr(importlib.import_module(home), cls), name))
    # Besides its own name, each class has the names that older releases saved it under: in the package, those
    # without the package's prefix.
    aliases = sorted(
        {(c, n) for c, name in layers for n in (name, name[max(name.find("models."), 0) :])}, key=lambda a: a[1]
    )
    classes = [getattr(torch.nn, n) for n in TORCH.split() if hasattr(torch.nn, n)]
    declared, numbers = kit.declare([*classes, *(c for c, _ in layers)], aliases), _numbers()
    torch.serialization.add_safe_globals(numbers)
    return lambda: kit.withdraw([*declared, *numbers])


def _numbers() -> list[Any]:
    """Declarations for NumPy's numbers and arrays in a checkpoint, of plain types only.

    NumPy trusts a file's definition of a type: a copy of float64 can be given fields anywhere in memory. Here each
    type is NumPy's own instance, which a file cannot change.
    """
    import numpy as np

    core = getattr(np, "_core", None) or np.core
    known = {t.str[1:]: t for t in map(np.dtype, NUMBERS)}

    def dtype(name: Any, *_: Any) -> Any:
        if not isinstance(name, str) or name not in known:
            raise pickle.UnpicklingError(f"a checkpoint may hold numbers of {', '.join(NUMBERS)}, not of {str(name)[:40] if isinstance(name, str) else type(name).__name__}")
        return known[name]

    def scalar(kind: Any, data: Any) -> Any:
        return core.multiarray.scalar(kind, data)

    def array(*_: Any) -> Any:
        raise pickle.UnpicklingError("a checkpoint's arrays are rebuilt, not made")

    def reconstruct(*_: Any) -> Any:
        return np.empty(0)

    found: list[Any] = [(dtype, "numpy.dtype"), (array, "numpy.ndarray")]
    for home in ("numpy._core.multiarray", "numpy.core.multiarray"):  # NumPy 2 and 1: a file may come from either
        found += [(scalar, f"{home}.scalar"), (reconstruct, f"{home}._reconstruct")]
    return found + [(c, secrets.token_hex(16)) for c in {np.ndarray, *map(type, known.values())}]
