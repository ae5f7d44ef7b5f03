"""Check that a class can be a layer of a detector."""

from __future__ import annotations

import sys

from .._name import PACKAGE
from ..errors import RegistryError
from . import safe
from .forms import Between, is_users

__all__ = ["RESERVED", "check_class"]

# The hosts' parsers set these on every layer; an attribute of the class's own would be overwritten or refuse it.
RESERVED = ("i", "f", "type", "np")

_CONV_HOMES = ("ultralytics.nn.modules.conv", "ultralytics.nn.modules", "models.common", "yolov5.models.common")


def check_class(cls: object) -> None:
    """Check that a class can be a layer of a detector, and declare it safe for ``torch.load(weights_only=True)``.

    Raises:
        RegistryError: It cannot; the message gives the reason and the remedy.
    """
    from torch import nn

    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise RegistryError(f"cannot register {cls!r}: it is not a subclass of torch.nn.Module")
    taken = [n for n in RESERVED if _is_code(cls, n)]
    if taken:
        raise RegistryError(
            f"cannot register {cls.__module__}.{cls.__qualname__}: it has a method or property called "
            f"{', '.join(map(repr, taken))}, and YOLO's parser sets .i, .f, .type and .np on every layer. "
            f"Rename it in the class."
        )
    for base in cls.__mro__[1:]:
        if base.__name__ == "Conv" and base.__module__ in _CONV_HOMES and "forward" in vars(cls):
            raise RegistryError(
                f"cannot register {cls.__module__}.{cls.__qualname__}: it overrides the forward of {base.__module__}.Conv, "
                f"and the host's fuse() replaces that forward, so the attention would vanish in val, predict and export. "
                f"Derive from nn.Module and hold a Conv instead."
            )
    # Its parts too: the classes that its file defines or imports from the kit.
    near = vars(sys.modules.get(cls.__module__) or object).values()
    parts = [c for c in near if isinstance(c, type) and issubclass(c, nn.Module) and _is_near(c, cls)]
    safe.declare([cls, *parts, *([Between] if is_users(cls) else [])])


def _is_near(part: type, cls: type) -> bool:
    return part is not cls and (part.__module__ == cls.__module__ or part.__module__.startswith(f"{PACKAGE}."))


def _is_code(cls: type, name: str) -> bool:
    """Whether a class defines a method or property of this name; attributes that a constructor sets are checked later."""
    for base in cls.__mro__:
        if base.__module__.startswith("torch.nn"):  # torch's own `type` method, which the hosts hide on every layer
            return False
        if name in vars(base):
            found = vars(base)[name]
            return callable(found) or hasattr(found, "__get__")
    return False
