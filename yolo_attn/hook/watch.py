"""Tell when a module has been imported: the first time, again after it was dropped, reloaded, or while it is imported.

One finder at the front of ``sys.meta_path`` that finds nothing itself: it asks the finders behind it, and has the
loader that they name call back once the module's code has run.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Callable

__all__ = ["Watch"]

Then = Callable[[ModuleType], None]


class Watch(importlib.abc.MetaPathFinder):
    """Calls `then` with each module of `names` whenever its code has run.

    Args:
        names: Full names of modules.
        then: Called with the module; it raises nothing.
    """

    def __init__(self, names: Sequence[str], then: Then) -> None:
        self.names = frozenset(names)
        self.then = then
        self._busy = threading.local()

    def start(self) -> None:
        """Begin; a module that is being imported at this moment is told of when it is done. Twice is once."""
        if self not in sys.meta_path:
            earlier = [f for f in sys.meta_path if (type(f).__module__, type(f).__name__) == (__name__, "Watch")]
            for finder in earlier:  # of an import of this kit that was dropped or reloaded
                sys.meta_path.remove(finder)
            sys.meta_path.insert(0, self)
        for name in self.names:
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if type(spec) is importlib.machinery.ModuleSpec and getattr(spec, "_initializing", False):
                spec.__class__ = _Unfinished
                vars(spec)["_then"] = self._done

    def stop(self) -> None:
        """End and leave nothing behind."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def _done(self, module: ModuleType) -> None:
        if self in sys.meta_path:
            self.then(module)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return what the other finders find, with a loader that calls back."""
        busy: set[str] = self._busy.__dict__.setdefault("names", set())
        if fullname not in self.names or fullname in busy:
            return None
        busy.add(fullname)
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec: Any = find(fullname, path, target) if find is not None and finder is not self else None
                if spec is not None:
                    if spec.loader is not None:  # as a namespace package's is
                        spec.loader = _Loader(spec.loader, self._done)
                    return spec  # type: ignore[no-any-return]
            return None
        finally:
            busy.discard(fullname)


class _Loader(importlib.abc.Loader):
    """The loader of a module until its code runs."""

    def __init__(self, loader: Any, then: Then) -> None:
        self.loader, self.then = loader, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        create = getattr(self.loader, "create_module", None)
        return create(spec) if create is not None else None

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does, which is the module's loader again from here on; then call back."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self.loader
        if hasattr(self.loader, "exec_module"):
            self.loader.exec_module(module)
        else:  # zip files before Python 3.10: the older interface fills the module of that name
            self.loader.load_module(module.__name__)
        self.then(module)


class _Unfinished(importlib.machinery.ModuleSpec):
    """The specification of a module whose import began before the watch: the end is when its mark is taken off."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            then = vars(self).pop("_then")
            object.__setattr__(self, "__class__", importlib.machinery.ModuleSpec)
            module = sys.modules.get(self.name)
            if module is not None and module.__spec__ is self:  # not where the import has failed
                then(module)
