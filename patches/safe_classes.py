"""Declare a classic host's layers safe for ``torch.load(weights_only=True)``, the default since torch 2.6.

Classic YOLOv5 pickles whole models. Up to v7.0 it loads them with a plain ``torch.load(path)``, which under torch
2.6 and later ends in an error: a training dies in its last step, where it strips its own checkpoint.

What is declared is less than the class: a stand-in under the class's name, which gives an empty instance and
never runs a constructor. A model's constructor evaluates its YAML, and a detector's that of a backend reads files;
a checkpoint must not be able to call either.
"""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from types import ModuleType
from typing import Any, Callable

__all__ = ["declare", "load_modules"]

KIT = __name__.rpartition(".patches")[0]

# Of torch.nn: what YOLOv5's layers are made of.
TORCH = """
    Sequential ModuleList ModuleDict Identity Conv1d Conv2d ConvTranspose2d Linear BatchNorm2d LayerNorm GroupNorm
    MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d Upsample Dropout Flatten ZeroPad2d MultiheadAttention SiLU
    ReLU ReLU6 LeakyReLU ELU GELU Mish Hardswish Hardsigmoid Sigmoid Tanh Softmax PReLU Softplus Hardtanh
"""


def declare(module: ModuleType) -> Callable[[], None] | None:
    """Declare the layers of the host that `module`, its ``models.yolo``, belongs to.

    Returns:
        A function that takes the declarations back, or None where torch has none of this.
    """
    import torch

    if not _named_declarations():
        return None
    load_modules()
    package = module.__name__.rpartition(".")[0]
    homes = [sys.modules.get(f"{package}.{n}") for n in ("yolo", "common", "experimental")]
    classes = {
        c
        for home in homes
        if home is not None
        for c in vars(home).values()
        if isinstance(c, type) and issubclass(c, torch.nn.Module) and c.__module__.startswith(f"{package}.")
    }
    classes |= {getattr(torch.nn, n) for n in TORCH.split() if hasattr(torch.nn, n)}
    mine: list[Any] = []
    for cls in classes:
        # torch asks whether an instance's own class was declared before it fills it: under a name nobody can guess
        mine += [(_stand_in(cls), f"{cls.__module__}.{cls.__qualname__}"), (cls, secrets.token_hex(16))]
    mine += _numbers()
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(mine)

    def undo() -> None:
        gone = {id(x) for x in mine} - {id(x) for x in before}
        kept = [x for x in torch.serialization.get_safe_globals() if id(x) not in gone]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kept)

    return undo


def load_modules() -> None:
    """Register the kit's modules, which declares them: torch asks by name and imports nothing on its own."""
    errors, log, plugins, registry = (
        importlib.import_module(f"{KIT}.{n}") for n in ("errors", "log", "plugins", "registry")
    )
    try:
        registry.load_all()
        for file in filter(None, os.environ.get(plugins.VARIABLE, "").split(os.pathsep)):
            if file.endswith(".py"):
                plugins.load_file(file)
    except errors.YoloAttnError as exc:  # the host must still import
        log.announce("%s", exc)


def _named_declarations() -> bool:
    """Whether torch knows declarations under another name: 2.6, where they also became necessary."""
    import torch

    major, minor = (int(x) for x in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 6)


def _stand_in(cls: Any) -> type:
    def new(_: type, *__: Any) -> Any:
        return cls.__new__(cls)

    return type(f"Empty{cls.__name__}", (), {"__new__": new, "__doc__": f"An empty {cls.__name__}."})


def _numbers() -> list[Any]:
    """What NumPy's numbers in a checkpoint are made of."""
    import numpy as np

    core = getattr(np, "_core", None) or np.core
    found: list[Any] = [np.ndarray, np.dtype]
    for name in ("scalar", "_reconstruct"):
        function = getattr(core.multiarray, name, None)
        if function is not None:
            # the name differs between NumPy 1 and 2, and a checkpoint may come from either
            found += [(function, f"numpy._core.multiarray.{name}"), (function, f"numpy.core.multiarray.{name}")]
    found += [type(np.dtype(t)) for t in ("float64", "float32", "float16", "int64", "int32", "bool")]
    return found
