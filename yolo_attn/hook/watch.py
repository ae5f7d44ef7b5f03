"""Call back when a module has been imported: the first time, again after it was dropped, or after a reload.

A finder at the front of ``sys.meta_path`` asks the finders behind it and wraps the loader that they return, so that it
calls back once the module's code has run.
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
    """Calls a function with each of some modules whenever the code of the module has run.

    Args:
        names: Full names of the modules.
        then: Called with the module; must not raise.
    """

    def __init__(self, names: Sequence[str], then: Then) -> None:
        self.names = frozenset(names)
        self.then = then
        self._busy = threading.local()

    def start(self) -> None:
        """Start watching, including modules that are being imported right now. Repeated calls have no effect."""
        if self not in sys.meta_path:
            earlier = [f for f in sys.meta_path if (type(f).__module__, type(f).__name__) == (__name__, "Watch")]
            for finder in earlier:  # of an earlier import of this kit
                sys.meta_path.remove(finder)
            sys.meta_path.insert(0, self)
        for name in self.names:
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if type(spec) is importlib.machinery.ModuleSpec and getattr(spec, "_initializing", False):
                spec.__class__ = _Unfinished
                vars(spec)["_then"] = self._done

    def stop(self) -> None:
        """Stop watching."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def _done(self, module: ModuleType) -> None:
        if self in sys.meta_path:
            self.then(module)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the specification that the other finders find, with a loader that calls back."""
        busy: set[str] = self._busy.__dict__.setdefault("names", set())
        if fullname not in self.names or fullname in busy:
            return None
        busy.add(fullname)
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec: Any = find(fullname, path, target) if find is not None and finder is not self else None
                if spec is not None:
                    if spec.loader is not None:  # a namespace package has no loader
                        spec.loader = _Loader(spec.loader, self._done)
                    return spec  # type: ignore[no-any-return]
            return None
        finally:
            busy.discard(fullname)


class _Loader(importlib.abc.Loader):
    """Wraps a loader until the module's code has run."""

    def __init__(self, loader: Any, then: Then) -> None:
        self.loader, self.then = loader, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Create the module as the wrapped loader does."""
        create = getattr(self.loader, "create_module", None)
        return create(spec) if create is not None else None

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module as the wrapped loader does, restore that loader on the module, and call back."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self.loader
        if hasattr(self.loader, "exec_module"):
            self.loader.exec_module(module)
        else:  # zip files before Python 3.10 have the older interface only
            self.loader.load_module(module.__name__)
        self.then(module)


class _Unfinished(importlib.machinery.ModuleSpec):
    """The specification of a module whose import began before the watch; it calls back when the import ends."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            then = vars(self).pop("_then")
            object.__setattr__(self, "__class__", importlib.machinery.ModuleSpec)
            module = sys.modules.get(self.name)
            if module is not None and module.__spec__ is self:  # the import has not failed
                then(module)
