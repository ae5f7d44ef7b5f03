"""Run a script that defines a parser: ``models/yolo.py --cfg yolov5s_se.yaml``.

Its parser is then in ``__main__``, where no import hook sees it, so the source is spliced before it runs.
"""

from __future__ import annotations

import builtins
import io
import linecache
import sys
import tokenize
import types
from pathlib import Path
from typing import Any

from .._name import PACKAGE
from .splice import SpliceError, splice

__all__ = ["run_parser"]

NAME = "_yolo_attn_rows"  # the global that the spliced source calls


def run_parser(script: Path, kit: Any) -> bool:
    """Run a script as ``__main__`` with its parser spliced.

    Args:
        script: The file.
        kit: The object that the parser calls.

    Returns:
        False, without running it, if the script has no parser of YOLO's shape.
    """
    with tokenize.open(script) as file:
        source = file.read()
    try:
        text = splice(source, "parse_model", NAME)
    except (SpliceError, SyntaxError):
        return False
    name = f"{script} (extended by {PACKAGE})"
    linecache.cache[name] = (len(text), None, io.StringIO(text).readlines(), name)
    code = compile(text, name, "exec", dont_inherit=True)
    main = types.ModuleType("__main__")
    main.__dict__.update({"__file__": str(script), "__builtins__": builtins, NAME: kit})
    before = sys.modules["__main__"]
    sys.modules["__main__"] = main
    try:
        exec(code, main.__dict__)
    finally:
        sys.modules["__main__"] = before
    return True
