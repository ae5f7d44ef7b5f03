"""Find the line of a module's file that a fault comes from: by traceback, by the running frames, by the syntax tree."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Callable

from .verdict import Line

__all__ = ["Places", "Sources"]

# Where an error's text names a place: Python's tracebacks, TorchScript's `file.py(12): forward` and `file.py:12:0`.
_PLACES = re.compile(r'File "([^"\n]+)", line (\d+)|([^\s"\'()]+\.py)[:(](\d+)')
_ANY = ("forward", "__init__")


class Places:
    """The files that a class and its parts are written in: its own, and those beside and below it.

    Args:
        file: The class's file.
    """

    def __init__(self, file: str) -> None:
        self.file = os.path.realpath(file) if file else ""
        self.folder = os.path.dirname(self.file) + os.sep
        kit = f"{Path(__file__).resolve().parents[2]}{os.sep}"
        self._kit = "" if self.file.startswith(kit) else kit
        self._mine: dict[str, bool] = {}

    def mine(self, path: str) -> bool:
        """Whether a file is the class's, or lies beside or below it."""
        if path not in self._mine:  # asked for every frame of every operation
            self._mine[path] = self._is_mine(path)
        return self._mine[path]

    def _is_mine(self, path: str) -> bool:
        if not self.file or path.startswith("<"):
            return False
        path = os.path.realpath(path)
        if path == self.file:
            return True
        if self._kit and path.startswith(self._kit):
            return False
        return path.startswith(self.folder) and "site-packages" not in path[len(self.folder) :]

    def line(self, path: str, number: int) -> Line:
        """Return a line with its text."""
        return Line(path, number, linecache.getline(path, number).strip())

    def first_in(self, text: str) -> Line | None:
        """Return the first line of these files that a text names: the innermost of a traceback that begins with the last call."""
        return next(self._named(text), None)

    def of_text(self, text: str) -> Line | None:
        """Return the last line of these files that a text names."""
        return next(iter(list(self._named(text))[::-1]), None)

    def _named(self, text: str) -> Iterator[Line]:
        for a, n, b, k in _PLACES.findall(text):
            if self.mine(a or b):
                yield self.line(a or b, int(n or k))


class Sources(Places):
    """The files of a class, and where in them a fault comes from.

    Args:
        cls: The class.
    """

    def __init__(self, cls: type) -> None:
        self.cls = cls
        try:
            file = inspect.getsourcefile(cls) or ""
        except (TypeError, OSError):
            file = ""
        super().__init__(file)

    def of_error(self, exc: BaseException | None) -> Line | None:
        """Return the innermost line of these files that an error passed through, or that its text names."""
        seen: list[BaseException] = []
        while exc is not None and exc not in seen:
            seen.append(exc)
            found, tb = None, exc.__traceback__
            while tb is not None:
                if self.mine(tb.tb_frame.f_code.co_filename):
                    found = self.line(tb.tb_frame.f_code.co_filename, tb.tb_lineno)
                tb = tb.tb_next
            found = self.of_text(str(exc)) or found
            if found is not None:
                return found
            exc = exc.__cause__ or exc.__context__
        return None

    def of_frames(self, frame: FrameType | None = None) -> Line | None:
        """Return the innermost line of these files that is running."""
        at = frame or sys._getframe(1)
        while at is not None:
            if self.mine(at.f_code.co_filename):
                return self.line(at.f_code.co_filename, at.f_lineno)
            at = at.f_back  # type: ignore[assignment]  # None ends the walk
        return None

    # -- by the syntax tree --------------------------------------------------------------------------------------

    def attribute(self, owner: type, name: str, methods: tuple[str, ...] = ()) -> Line | None:
        """Return where a class sets ``self.name``, registers it as a buffer, or changes it in place.

        Args:
            owner: The class of the part that has it.
            name: The attribute.
            methods: Look in these methods only; empty for all.
        """

        def sets(node: ast.AST) -> bool:
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                flat = [e for t in targets for e in (t.elts if isinstance(t, (ast.Tuple, ast.List)) else [t])]
                return any(_self_name(t) == name for t in flat)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                first = node.args[0] if node.args else None
                named = isinstance(first, ast.Constant) and first.value == name
                return (named and node.func.attr in ("register_buffer", "register_parameter", "add_module")) or (
                    node.func.attr in ("append", "update", "add", "setdefault", "extend") and _self_name(node.func.value) == name
                )
            return False

        return self.first(owner, sets, methods)

    def call(self, owner: type, words: tuple[str, ...], methods: tuple[str, ...] = ("forward",)) -> Line | None:
        """Return the first line that calls one of these, by the last part of its name or by ``package.name``."""

        def calls(node: ast.AST) -> bool:
            if not isinstance(node, ast.Call):
                return False
            name = ast.unparse(node.func)
            return any(name == w or name.endswith(f".{w}") or (w.endswith(".") and name.startswith(w)) for w in words)

        return self.first(owner, calls, methods)

    def method(self, owner: type, name: str) -> Line | None:
        """Return where a class defines a method, or the class itself where it does not."""
        for file, node in self._classes(owner):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == name:
                    return self.line(file, part.lineno)
        return next((self.line(file, node.lineno) for file, node in self._classes(owner)), None)

    def returns(self, owner: type) -> Line | None:
        """Return the last ``return`` of `forward`."""
        for file, node in self._classes(owner):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "forward":
                    found = [n.lineno for n in ast.walk(part) if isinstance(n, ast.Return)]
                    return self.line(file, max(found or [part.lineno]))
        return self.method(owner, "forward")

    def first(self, owner: type, wanted: Callable[[ast.AST], bool], methods: tuple[str, ...] = ()) -> Line | None:
        """Return the first statement of a class's methods for which `wanted` holds."""
        for file, method in self._methods(owner, methods):
            found = [node.lineno for node in ast.walk(method) if wanted(node) and hasattr(node, "lineno")]
            if found:
                return self.line(file, min(found))
        return None

    def _methods(self, owner: type, names: tuple[str, ...]) -> Iterator[tuple[str, ast.FunctionDef]]:
        """`forward` names whatever runs in it: every method but the constructor."""
        for file, node in self._classes(owner):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and (
                    not names or part.name in names or ("forward" in names and part.name not in _ANY)
                ):
                    yield file, part

    def _classes(self, owner: type) -> Iterator[tuple[str, ast.ClassDef]]:
        """The definitions of a class and of the classes that it inherits from, as far as they are in these files."""
        for cls in owner.__mro__:
            try:
                file = os.path.realpath(inspect.getsourcefile(cls) or "")
            except (TypeError, OSError):
                continue
            if not self.mine(file):
                continue
            tree = _tree(file)
            for node in ast.walk(tree) if tree is not None else ():
                if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                    yield file, node


def _self_name(node: Any) -> str:
    """``name`` of ``self.name`` and of ``self.name[...]``."""
    if isinstance(node, ast.Subscript):
        return _self_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self" else ""


def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
