"""Finds ``yolo_attn.plugins.<stem>`` among the files that the user named, and runs the very bytes that are hashed.

What lies below a package goes the same way: each file was hashed when the package was loaded, is run only if it is
still the same, and never from bytecode. So nobody can put code beside a plug-in that runs with it unnoticed.
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

_asked = threading.local()  # .files: what this thread is loading now, by stem


def advice(target: str) -> str:
    """Say how to give a plug-in."""
    if target.endswith(".py"):
        return f"Give it with --plugin PATH/{Path(target).name}, or {VARIABLE}=PATH/{Path(target).name}."
    return f"Install the package that brings it, or import {target} before."


@contextlib.contextmanager
def asking(stem: str, file: Path) -> Iterator[None]:
    """Have a stem found in this file, in this thread, whatever else was named."""
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
    """Return what the environment variable names: files, and packages by their folder.

    A relative entry is one of the folder in which it is first read, which is that of ``import yolo_attn``; it is made
    absolute in the environment too, so that it does not follow the working folder from there on.
    """
    given = [item for item in os.environ.get(VARIABLE, "").split(os.pathsep) if item]
    with contextlib.suppress(FileNotFoundError):  # no working folder any more
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
    """Return the name under which a plug-in file is imported: its own, or its folder's for a package."""
    return file.parent.name if file.name == "__init__.py" else file.stem


class Loader(importlib.machinery.SourceFileLoader):
    """Runs the very bytes whose hash it tells.

    Args:
        fullname: Full name of the module.
        path: Its file.
        root: The loader of the package that it is a part of.
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
            raise PluginError(f"{path} has been changed since its plug-in was loaded. Start a fresh process.")

    def _hash_of(self, path: str | Path, default: str = "") -> str:
        if not self.files:
            return default
        with contextlib.suppress(ValueError):
            return self.files.get(Path(path).relative_to(self.folder).as_posix(), "")
        return ""

    def get_data(self, path: str) -> bytes:
        """The content as it was read, and is hashed."""
        return self.content if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> types.CodeType | None:
        """Compile the content; a file in ``__pycache__`` could hold anything."""
        return self.source_to_code(self.content, self.path)

    def below(self, fullname: str, path: Sequence[str]) -> importlib.machinery.ModuleSpec:
        """Return the specification of a module within this package.

        Raises:
            PluginError: Its file was not there or another one when the package was loaded, or is bytecode alone.
            ModuleNotFoundError: There is none.
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
                            f"{built} has been changed since its plug-in was loaded. Start a fresh process."
                        )
                    loader: Any = importlib.machinery.ExtensionFileLoader(fullname, str(built))
                    return importlib.util.spec_from_file_location(fullname, built, loader=loader)  # type: ignore[return-value]
            if source.is_file():
                return importlib.util.spec_from_file_location(  # type: ignore[return-value]
                    fullname, source, loader=Loader(fullname, str(source), self)
                )
            if source.with_suffix(".pyc").is_file():
                raise PluginError(
                    f"{source.with_suffix('.pyc')} is bytecode without its source, which no plug-in runs. "
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
    """First in line, since what lies below a plug-in package must not be found by anybody else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the specification of a plug-in, or of a module within one.

        Raises:
            PluginError: Nobody named such a file, or it has been changed.
        """
        if not fullname.startswith(f"{PLUGINS}."):
            return None
        stem, _, below = fullname[len(PLUGINS) + 1 :].partition(".")
        if stem.startswith("_"):  # of the kit
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
                f"needs the plug-in {stem}.py, which is not here. {memory.story(stem)}{advice(stem + '.py')}"
            )
        loader = Loader(fullname, str(file))
        if record is not None and loader.sha256 != record.sha256:  # between two readings
            raise PluginError(f"needs the plug-in {file}, which is being changed. {advice(stem + '.py')}")
        locations = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=locations
        )


def install() -> None:
    """Put the finder in its place. Twice is once, also after this file was reloaded."""
    for finder in [f for f in sys.meta_path if (type(f).__module__, type(f).__qualname__) == (__name__, "_Finder")]:
        sys.meta_path.remove(finder)
    sys.meta_path.insert(0, _Finder())
