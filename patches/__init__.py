"""One module per host: where its parser lives, how to recognise it, what is touched and why.

Imported as ``yolo_attn.patches``. Every host module offers one :class:`Host` named ``HOST``.

A new host is one file beside these, ``mine_host.py``, and its name in ``_NAMES`` below::

    from . import Host, Touch

    HOST = Host(
        name="mine",
        touches=(Touch("mine.models.parser", "parse_model", "registered names in YAML rows"),),
        recognise=lambda module: module.__name__.startswith("mine."),
        version=lambda module: __import__("mine").__version__,
        supported=lambda: "mine 1.0 to 1.4",
    )

The first touch is the parser, into which :mod:`yolo_attn.splice` puts the kit's two seams; it must have YOLO's shape, a
loop over rows that looks a name up and ends in ``else: c2 = ch[f]``, and says what is missing if it has not. Any other
touch runs a ``replacement(original, *args, **kwargs)`` in place of one function. `yolo-attn patch --diff FILE` shows
what becomes of a parser, `yolo-attn env` whether the host was found and hooked, and the table of hosts in the README is
made from the touches. File names end in what keeps them from shadowing the package that they patch.
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
