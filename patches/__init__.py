"""One module per host: how to recognise it, what is patched and why.

Imported as ``yolo_attn.patches``. Every host module defines one :class:`Host` named ``HOST``. Nothing here imports the
kit: the object that a patch calls is passed in as a :class:`Kit`.

A new host is one file beside these, ``mine_host.py``, and its name in ``_NAMES`` below::

    from .interface import Host, Patch

    HOST = Host(
        name="mine",
        patches=(Patch("mine.models.parser", "parse_model", "registered names in YAML rows"),),
        recognise=lambda module: module.__name__.startswith("mine."),
        version=lambda module: __import__("mine").__version__,
        supported=lambda: "mine 1.0 to 1.4",
    )

The first patch is the parser, which :mod:`yolo_attn.hook.splice` rewrites in two places. It must have YOLO's shape, a
loop over rows that looks up a name and ends in ``else: c2 = ch[f]``; otherwise the error says what is missing. Any other
patch runs a ``replacement(kit, original, *args, **kwargs)`` in place of one function. `yolo-attn patch --diff FILE`
shows the rewritten parser, `yolo-attn env` whether a host was found and patched, and the table of patches in the README
is generated from these files. Their names have a suffix so that they do not shadow the package that they patch.
"""

from __future__ import annotations

import importlib

from .interface import Host, Kit, Patch

__all__ = ["HOSTS", "Host", "Kit", "Patch"]

if __name__ == "patches":
    raise ImportError("import yolo_attn.patches, not patches: imported under two names, its state would exist twice")

_NAMES = ("ultralytics_host", "yolov5_checkout", "yolov5_package")

HOSTS: tuple[Host, ...] = tuple(importlib.import_module(f"{__name__}.{n}").HOST for n in _NAMES)
