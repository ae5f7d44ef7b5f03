"""Where the package's two data folders are: inside it once installed, beside it in a bare checkout.

``patches/`` and ``model_cfgs/`` lie at the root of the repository, for those who read and edit them, and are a part
of the package all the same: ``yolo_attn.patches``. These two names are found here, and nothing else of the root.
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
    """Finds `PACKAGE.patches` and `PACKAGE.model_cfgs` beside the package, where no other finder found them inside."""

    def __init__(self, package: str, root: Path) -> None:
        self.package, self.root = package, root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the specification of one of the two folders."""
        package, _, name = fullname.rpartition(".")
        folder = self.root / name
        if package != self.package or name not in FOLDERS or not (folder / "__init__.py").is_file():
            return None
        return importlib.util.spec_from_file_location(
            fullname, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


def install(package: str, path: Iterable[str]) -> None:
    """Have the two folders found for a package, whatever name it is imported under. Twice is once.

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
    """Whether this is the class above, of this import of the file or of one before it was reloaded."""
    return (type(finder).__module__, type(finder).__qualname__) == (__name__, "_Finder")
