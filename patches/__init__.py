"""One module per host: where its parser lives, how to recognise it, what is patched and why.

Imported as ``yolo_attn.patches``. Every host module offers one :class:`Host` named ``HOST``. Nothing here imports the
kit: what a patch calls is handed in as a :class:`Kit`.

A new host is one file beside these, ``mine_host.py``, and its name in ``_NAMES`` below::

    from .interface import Host, Patch

    HOST = Host(
        name="mine",
        patches=(Patch("mine.models.parser", "parse_model", "registered names in YAML rows"),),
        recognise=lambda module: module.__name__.startswith("mine."),
        version=lambda module: __import__("mine").__version__,
        supported=lambda: "mine 1.0 to 1.4",
    )

The first patch is the parser, into which :mod:`yolo_attn.hook.splice` puts the kit's two seams; it must have YOLO's shape, a
loop over rows that looks a name up and ends in ``else: c2 = ch[f]``, and says what is missing if it has not. Any other
patch runs a ``replacement(kit, original, *args, **kwargs)`` in place of one function. `yolo-attn patch --diff FILE`
shows what becomes of a parser, `yolo-attn env` whether the host was found and patched, and the table of patches in the
README is made from them. File names end in what keeps them from shadowing the package that they patch.
"""

from __future__ import annotations

import importlib

from .interface import Host, Kit, Patch

__all__ = ["HOSTS", "Host", "Kit", "Patch"]

if __name__ == "patches":
    raise ImportError("import yolo_attn.patches, not patches: under two names its state would exist twice")

_NAMES = ("ultralytics_host", "yolov5_checkout", "yolov5_package")

HOSTS: tuple[Host, ...] = tuple(importlib.import_module(f"{__name__}.{n}").HOST for n in _NAMES)
