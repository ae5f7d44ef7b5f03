"""One module per host: where its parser lives, how to recognise it, what is touched and why.

Imported as ``yolo_attn.patches``. Every host module offers one :class:`Host` named ``HOST``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Callable

__all__ = ["HOSTS", "Host", "Touch"]

if __name__ == "patches":
    raise ImportError("import yolo_attn.patches, not patches: under two names its state would exist twice")


@dataclass(frozen=True)
class Touch:
    """One function of a host that runs the kit's code, and why.

    Args:
        module: Where the host defines it.
        function: Its name; `Class.method` for a method. One that a version lacks is passed over.
        why: One line for the table of hosts.
        replacement: ``f(original, *args, **kwargs)`` run in its place; None splices the parser's two seams instead.
        defined: False passes over a module that only imports the function from elsewhere.
    """

    module: str
    function: str
    why: str
    replacement: Callable[..., Any] | None = None
    defined: bool = True

    @property
    def splice(self) -> bool:
        """Whether this is the parser."""
        return self.replacement is None


@dataclass(frozen=True)
class Host:
    """One host: its name, what is touched, how it is recognised.

    Args:
        name: As `yolo-attn env` and the tables print it.
        touches: The functions touched; the first is the parser.
        recognise: Whether a module of that import path is this host's (``models.yolo`` may be anybody's).
        version: The version of the host that a module belongs to.
        supported: Gives the versions it was tested with, in words; asked only where they are printed.
        prepare: Called with each of its modules once hooked; what it returns is called at uninstall.
        watches: Further modules that `prepare` is called with.
        explain: Says of a parser that cannot be hooked how it differs from the released ones, or nothing.
    """

    name: str
    touches: tuple[Touch, ...]
    recognise: Callable[[ModuleType], bool]
    version: Callable[[ModuleType], str]
    supported: Callable[[], str]
    prepare: Callable[[ModuleType], Callable[[], None] | None] | None = None
    explain: Callable[[ModuleType], str] | None = None
    watches: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """Every module that is looked at, each once."""
        return tuple(dict.fromkeys([*(t.module for t in self.touches), *self.watches]))


_NAMES = ("ultralytics_host", "yolov5_checkout", "yolov5_package")

HOSTS: tuple[Host, ...] = tuple(importlib.import_module(f"{__name__}.{n}").HOST for n in _NAMES)
