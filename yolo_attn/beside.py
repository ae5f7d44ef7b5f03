"""Find the package's two data folders: inside it once installed, beside it in a checkout.

``patches/`` and ``model_cfgs/`` lie at the root of the repository, where they are easy to find and edit, and are
imported as parts of the package (``yolo_attn.patches``). Nothing else of the root can be imported this way.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

__all__ = ["FOLDERS", "install"]

FOLDERS = ("patches", "model_cfgs")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `PACKAGE.patches` and `PACKAGE.model_cfgs` beside the package if no other finder found them inside it."""

    def __init__(self, package: str, root: Path) -> None:
        self.package, self.root = package, root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module spec of one of the two folders, or None for any other name."""
        package, _, name = fullname.rpartition(".")
        folder = self.root / name
        if package != self.package or name not in FOLDERS or not (folder / "__init__.py").is_file():
            return None
        return importlib.util.spec_from_file_location(
            fullname, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


def install(package: str, path: Iterable[str]) -> None:
    """Add a finder of the two folders for a package, under whatever name it is imported; idempotent.

    Args:
        package: Full name of the package.
        path: Its folders.
    """
    inside = Path(next(iter(path))).resolve()
    for finder in [f for f in sys.meta_path if _is_ours(f) and getattr(f, "package", None) == package]:
        sys.meta_path.remove(finder)
    if not all((inside / name).is_dir() for name in FOLDERS):
        sys.meta_path.append(_Finder(package, inside.parent))


def _is_ours(finder: object) -> bool:
    """Whether this is an instance of the class above, also one from before this file was reloaded."""
    return (type(finder).__module__, type(finder).__qualname__) == (__name__, "_Finder")
