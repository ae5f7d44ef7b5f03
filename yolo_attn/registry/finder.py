"""Import ``yolo_attn.plugins.<stem>`` from the files that the user named, running the very bytes that were hashed.

The same holds for the modules of a plug-in package: each file is hashed when the package is loaded, runs only while it
is unchanged, and never from bytecode. So code put beside a plug-in cannot run with it unnoticed.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .._name import PACKAGE
from ..errors import PluginError
from . import memory

__all__ = ["PLUGINS", "VARIABLE", "Loader", "advice", "asking", "install", "named"]

VARIABLE = "YOLO_ATTN_PLUGINS"
PLUGINS = f"{PACKAGE}.plugins"

_asked = threading.local()  # .files: the files that this thread is loading now, by stem


def advice(target: str) -> str:
    """Return how to load a plug-in, as a sentence.

    Args:
        target: The plug-in's file, or the module of a package.
    """
    if target.endswith(".py"):
        return f"Load it with --plugin PATH/{Path(target).name} or {VARIABLE}=PATH/{Path(target).name}."
    return f"Install the package that provides it, or import {target} first."


@contextlib.contextmanager
def asking(stem: str, file: Path) -> Iterator[None]:
    """Let this thread find a stem in this file, whatever other files were named."""
    files: dict[str, Path] = _asked.__dict__.setdefault("files", {})
    before = files.get(stem)
    files[stem] = file
    try:
        yield
    finally:
        if before is None:
            del files[stem]
        else:
            files[stem] = before


def named() -> list[Path]:
    """Return the plug-ins that ``YOLO_ATTN_PLUGINS`` names: files, and folders of packages.

    A relative entry is relative to the working folder at ``import yolo_attn``, when it is first read. It is made
    absolute in the environment as well, so that a later change of the working folder does not matter.
    """
    given = [item for item in os.environ.get(VARIABLE, "").split(os.pathsep) if item]
    with contextlib.suppress(FileNotFoundError):  # the working folder is gone
        whole = [os.path.abspath(os.path.expanduser(item)) for item in given]
        if whole != given:
            os.environ[VARIABLE] = os.pathsep.join(whole)
        return [Path(item) for item in whole]
    return [Path(item) for item in given if os.path.isabs(item)]


def _from_environment(stem: str) -> Path | None:
    for path in named():
        if path.is_dir() and path.name == stem:
            path = path / "__init__.py"
        if path.is_file() and stem == stem_of(path):
            return path.resolve()
    return None


def stem_of(file: Path) -> str:
    """Return the name under which a plug-in file is imported: its own stem, or the folder's name for a package."""
    return file.parent.name if file.name == "__init__.py" else file.stem


class Loader(importlib.machinery.SourceFileLoader):
    """A loader that runs the very bytes whose hash it reports.

    Args:
        fullname: Full name of the module.
        path: Path of its file.
        root: The loader of the plug-in package that the module is part of, or None.

    Raises:
        PluginError: The file cannot be read, or has changed since its package was loaded.
    """

    def __init__(self, fullname: str, path: str, root: Loader | None = None) -> None:
        super().__init__(fullname, path)
        self.files: dict[str, str] = {}
        self.folder = Path(path).parent
        try:
            self.content = Path(path).read_bytes()
            if Path(path).name == "__init__.py" and root is None:
                self.files = memory.importable(self.folder)
        except (OSError, ValueError) as exc:
            raise PluginError(f"the plug-in {path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
        own = memory.digest_of(self.content)
        self.sha256 = memory.digest_of_files(self.files) if self.files else own
        if own != (root or self)._hash_of(path, own):
            raise PluginError(f"{path} has changed since its plug-in was loaded. Restart the process.")

    def _hash_of(self, path: str | Path, default: str = "") -> str:
        if not self.files:
            return default
        with contextlib.suppress(ValueError):
            return self.files.get(Path(path).relative_to(self.folder).as_posix(), "")
        return ""

    def get_data(self, path: str) -> bytes:
        """Return the bytes that were read and hashed."""
        return self.content if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> types.CodeType | None:
        """Compile the source; a file in ``__pycache__`` could hold anything."""
        return self.source_to_code(self.content, self.path)

    def below(self, fullname: str, path: Sequence[str]) -> importlib.machinery.ModuleSpec:
        """Return the specification of a module of this package.

        Raises:
            PluginError: Its file is new or changed since the package was loaded, or is bytecode without a source.
            ModuleNotFoundError: There is no such module.
        """
        name = fullname.rpartition(".")[2]
        namespaces = []
        for folder in map(Path, path):
            package, source = folder / name / "__init__.py", folder / f"{name}.py"
            if package.is_file():
                return importlib.util.spec_from_file_location(  # type: ignore[return-value]  # never None with a loader
                    fullname, package, loader=Loader(fullname, str(package), self),
                    submodule_search_locations=[str(package.parent)],
                )  # fmt: skip
            for suffix in importlib.machinery.EXTENSION_SUFFIXES:
                built = folder / (name + suffix)
                if built.is_file():
                    if memory.digest(built) != self._hash_of(built):
                        raise PluginError(
                            f"{built} has changed since its plug-in was loaded. Restart the process."
                        )
                    loader: Any = importlib.machinery.ExtensionFileLoader(fullname, str(built))
                    return importlib.util.spec_from_file_location(fullname, built, loader=loader)  # type: ignore[return-value]
            if source.is_file():
                return importlib.util.spec_from_file_location(  # type: ignore[return-value]
                    fullname, source, loader=Loader(fullname, str(source), self)
                )
            if source.with_suffix(".pyc").is_file():
                raise PluginError(
                    f"{source.with_suffix('.pyc')} is bytecode without its source and is not run. "
                    f"Put {source.name} beside it."
                )
            if (folder / name).is_dir():
                namespaces.append(str(folder / name))
        if not namespaces:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = namespaces
        return spec


class _Finder(importlib.abc.MetaPathFinder):
    """Finds plug-ins, first in ``sys.meta_path``: no other finder may find the modules of a plug-in package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the specification of a plug-in or of a module of one.

        Raises:
            PluginError: No such file was named, or it has changed.
        """
        if not fullname.startswith(f"{PLUGINS}."):
            return None
        stem, _, below = fullname[len(PLUGINS) + 1 :].partition(".")
        if stem.startswith("_"):  # the kit's own
            return None
        if below:
            loader = getattr(getattr(sys.modules.get(f"{PLUGINS}.{stem}"), "__spec__", None), "loader", None)
            return loader.below(fullname, path or []) if isinstance(loader, Loader) else None
        record = None
        file = getattr(_asked, "files", {}).get(stem) or _from_environment(stem)
        if file is None:
            record = memory.recall(stem)
            file = record.path if record is not None else None
        if file is None:
            raise PluginError(
                f"needs the plug-in {stem}.py, which was not found. {memory.history(stem)}{advice(stem + '.py')}"
            )
        loader = Loader(fullname, str(file))
        if record is not None and loader.sha256 != record.sha256:  # between two reads
            raise PluginError(f"needs the plug-in {file}, which is being changed. {advice(stem + '.py')}")
        locations = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=locations
        )


def install() -> None:
    """Put the finder first in ``sys.meta_path``, replacing one that an earlier call or import put there."""
    for finder in [f for f in sys.meta_path if (type(f).__module__, type(f).__qualname__) == (__name__, "_Finder")]:
        sys.meta_path.remove(finder)
    sys.meta_path.insert(0, _Finder())
