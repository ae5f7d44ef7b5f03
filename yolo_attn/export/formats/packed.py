"""A conversion as what goes through a pipe to a new process, or why that one could not make it.

A new process imports what it is given by name: what was defined or replaced in the program that runs, it does not have.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ..._name import PACKAGE
from ...errors import first_line
from ...weights.attention import name_of
from .base import Job

__all__ = ["packed"]

# Whose functions are found in classes of others: of torch, its own, and what the kit does to a host on import.
LENDERS = ("torch.", "typing", f"{PACKAGE}.", "None")


def packed(convert: Callable[..., Path], given: tuple[Any, ...]) -> tuple[list[np.ndarray], str]:
    """Return a call as what goes through a pipe, or why a new process cannot make it."""
    jobs = [g for g in given if isinstance(g, Job)]
    modules = [m for job in jobs for m in job.source.model.modules()]
    classes = {type(m) for m in modules}
    if why := next(filter(None, (*map(_changed, classes), *map(_changed_itself, modules))), ""):
        return [], why
    # a new process has not run what registered a user's classes
    known = {cls: name for cls in classes if not cls.__module__.startswith(f"{PACKAGE}.") and (name := name_of(cls))}
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps((known, convert, given), 5, buffer_callback=buffers.append)
    except Exception as exc:  # whatever a user's class raises; what is local to a function is no pickle
        return [], f"it cannot be given to another process ({first_line(exc)[:150]})"
    if b"__main__" in data:
        return [], "a part of it is defined in the program that runs"
    return [np.frombuffer(data, np.uint8), *(np.frombuffer(b.raw(), np.uint8) for b in buffers)], ""


def _changed(cls: type) -> str:
    """Return why a new process would not have a class as it is here."""
    if cls.__module__ == "__main__":
        return f"{cls.__name__} is defined in the program that runs"
    spec = getattr(sys.modules.get(cls.__module__), "__spec__", None)
    if getattr(spec, "_initializing", False):  # importing it would export it again, in a process that would do the same
        return f"{cls.__module__}, where {cls.__name__} is defined, is still being imported"
    for base in cls.__mro__:
        for name, value in list(vars(base).items()):
            made = getattr(value, "__func__", getattr(value, "fget", value))  # of static and class methods, of properties
            home = str(getattr(made, "__module__", None)) if isinstance(made, FunctionType) else base.__module__
            lent = name != "forward" and home.startswith(LENDERS)
            if home != base.__module__ and not lent and not _both_ours(home, base.__module__):
                return f"{base.__name__}.{name} was replaced in the program that runs"
    return ""


def _both_ours(*modules: str) -> bool:
    return all(name.startswith(f"{PACKAGE}.") for name in modules)


def _changed_itself(module: Any) -> str:
    """Return why a new process would not have an object as it is here: a method is sent by its name alone."""
    for name, value in vars(module).items():
        if isinstance(value, MethodType) and getattr(type(value.__self__), value.__func__.__name__, None) is not value.__func__:
            return f"{name} of one {type(module).__name__} was replaced in the program that runs"
    return ""
