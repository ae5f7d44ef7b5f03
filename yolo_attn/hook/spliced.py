"""The spliced parser of a host: its new code, and the object that the two spliced expressions, its seams, call."""

from __future__ import annotations

import inspect
import io
import linecache
import types
from pathlib import Path
from typing import Any, Callable

from .._name import PACKAGE
from ..errors import HostError
from . import patching
from .refusal import refusal
from .splice import SpliceError, find_code, splice

__all__ = ["Seams", "nothing", "spliced_code"]


class Seams(patching.Patched):
    """The object that a parser calls at its two seams, shared by all copies of the kit in the process.

    A row goes to the copy that knows its name; the last one joined takes the rest.

    Args:
        kit: Import name of the first copy.
        original: The parser's own code.
    """

    def __init__(self, kit: str, original: types.CodeType) -> None:
        super().__init__(kit, original, nothing, nothing)
        self.kits: dict[str, Any] = {}

    def join(self, name: str, kit: Any) -> None:
        """Add a copy of the kit, replacing an earlier import of the same copy."""
        self.kits = {**{n: k for n, k in self.kits.items() if n != name}, name: kit}

    def leave(self, name: str, kit: Any) -> bool:
        """Remove a copy and return whether none is left. The last one stays for a parse that is running."""
        if self.kits.get(name) is not kit:
            return False
        rest = {n: k for n, k in self.kits.items() if n != name}
        self.kits = rest or self.kits
        return not rest

    def find(self, name: Any, args: list[Any], i: int, d: dict[str, Any], lookup: Callable[[], Any]) -> Any:
        """Return the class that a row names; see :func:`.seams.find`."""
        *others, last = self.kits.values()
        return next((k for k in others if k.knows(name, d, i)), last).find(name, args, i, d, lookup)

    def place(self, m: Any, *given: Any) -> tuple[Any, Any, int, list[Any]]:
        """Return builder, output channels, repeats and arguments; see :func:`.seams.place`."""
        *others, last = self.kits.values()
        found: tuple[Any, Any, int, list[Any]] = next((k for k in others if k.binds(m)), last).place(m, *given)
        return found


def nothing(*_: Any) -> None:
    """Stand in where a :class:`.patching.Patched` needs a function: a parser is spliced, not replaced."""


def spliced_code(
    host: Any, patch: Any, module: types.ModuleType, function: types.FunctionType
) -> tuple[types.CodeType, Callable[[], None]]:
    source, path = _source(host, module)
    try:
        untouched = find_code(compile(source, path, "exec", dont_inherit=True), patch.function)
    except SyntaxError as exc:
        raise HostError(refusal(host, module, f"its source does not compile: {exc}")) from exc
    except SpliceError as exc:
        raise HostError(refusal(host, module, f"could not find {exc}")) from exc
    if untouched != patching.bottom(function.__code__):
        raise HostError(
            refusal(
                host,
                module,
                f"the {patch.function} in memory is not the one in the file: something else has patched it, or the "
                f"file was edited after it was imported. Remove the other patch or restart the process",
            )
        )
    try:
        text = splice(source, patch.function, repr(patching.CONSTANT))
    except SpliceError as exc:
        raise HostError(refusal(host, module, f"{patch.function} has another shape: could not find {exc}")) from exc
    name = f"{path} (extended by {PACKAGE})"
    code = find_code(compile(text, name, "exec", dont_inherit=True), patch.function)
    # Tracebacks and inspect.getsource read this entry and so show the code that runs; without a time it never expires.
    linecache.cache[name] = (len(text), None, io.StringIO(text).readlines(), name)

    def forget() -> None:
        linecache.cache.pop(name, None)

    return code, forget


def _source(host: Any, module: types.ModuleType) -> tuple[str, str]:
    path = getattr(module, "__file__", None) or ""
    if path.endswith(".py") and Path(path).is_file():
        import tokenize

        with tokenize.open(path) as file:
            return file.read(), path
    try:
        return inspect.getsource(module), path or f"<{module.__name__}>"
    except (OSError, TypeError) as exc:
        raise HostError(refusal(host, module, "its source is not available, and the patch is made from it")) from exc
