"""Attention that users bring: files named in a YAML's ``register:``, by ``--plugin`` or by ``YOLO_ATTN_PLUGINS``.

A plug-in file becomes the module ``yolo_attn.plugins.<stem>``, so its classes pickle by a name that any process
with the kit can import again: unpickling a checkpoint imports that name, and the finder below looks for the file.

Whose code runs: only files that the user named, either in this process (a YAML given as a path, ``--plugin``,
the environment variable) or earlier on this machine and unchanged since, by content hash (:mod:`._memory`). What
runs is what was hashed: the file is read once, and no bytecode from ``__pycache__`` stands in for it. A checkpoint
never decides which file is run, and nothing is loaded from a YAML while ``ULTRALYTICS_SAFE_LOAD`` is set.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..binding import Binding
from ..errors import PluginError, RegistryError, did_you_mean
from ..log import announce
from . import _memory

__all__ = ["VARIABLE", "binding_of", "from_yaml", "load_file", "load_register", "safe_load"]

VARIABLE = "YOLO_ATTN_PLUGINS"

_bindings: dict[type, Binding] = {}
_asked: dict[str, Path] = {}  # what load_file is importing now, by stem


def safe_load() -> bool:
    """Whether the ultralytics host was asked to load nothing that runs code."""
    return os.environ.get("ULTRALYTICS_SAFE_LOAD", "").strip().lower() in {"1", "true", "yes", "on"}


def load_file(path: str | os.PathLike[str]) -> types.ModuleType:
    """Run a plug-in file, once, as `yolo_attn.plugins.<stem>`, and remember that the user named it.

    Child processes find it too: the file is added to the environment variable ``YOLO_ATTN_PLUGINS``.

    Raises:
        PluginError: No such file, a stem that is no identifier or is taken by another file, or an error inside.
    """
    file = Path(os.path.expanduser(path))
    if file.is_dir():
        file = file / "__init__.py"
    if not file.is_file():
        raise PluginError(f"plug-in file not found: {path} (looked in {Path.cwd()}). Give its path with --plugin FILE.")
    file = file.resolve()
    stem = file.parent.name if file.name == "__init__.py" else file.stem
    if not stem.isidentifier():
        raise PluginError(
            f"the plug-in {file} needs a name that Python can import: letters, digits and _, not '{stem}'"
        )
    name = f"{__name__}.{stem}"
    module = sys.modules.get(name)
    if module is not None:
        other = Path(getattr(module, "__file__", "") or "")
        if other == file or _memory.digest(other) == _memory.digest(
            file
        ):  # or a copy of the same code, as in a run folder
            _tell_children(file)
            return module
        raise PluginError(
            f"two plug-ins are called '{stem}': {other} is loaded, {file} is asked for. Rename one of them: "
            f"checkpoints find a plug-in by its file name."
        )
    _asked[stem] = file
    try:
        module = _run(name, file)
    finally:
        del _asked[stem]
    _tell_children(file)
    loader = getattr(module.__spec__, "loader", None)
    if isinstance(loader, _Loader):
        _memory.remember(stem, file, loader.sha256)
    return module


def _tell_children(file: Path) -> None:
    """Put a plug-in first in line: a child process that needs the stem takes it, whatever else the variable names."""
    known = [p for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p and p != str(file)]
    os.environ[VARIABLE] = os.pathsep.join([str(file), *known])


def _run(name: str, file: Path) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except PluginError:
        raise
    except BaseException as exc:
        if isinstance(exc, (KeyboardInterrupt, GeneratorExit)):
            raise
        raise PluginError(f"the plug-in {file} fails on import: {_spot(exc, file)}{type(exc).__name__}: {exc}") from exc


def _spot(exc: BaseException, file: Path) -> str:
    """`line 3: ` where the error's traceback passes through the file."""
    if isinstance(exc, SyntaxError) and exc.lineno:
        return f"line {exc.lineno}: "
    line, tb = None, exc.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == str(file):
            line = tb.tb_lineno
        tb = tb.tb_next
    return f"line {line}: " if line else ""


def load_register(d: dict[str, Any], folder: Path, file: str) -> None:
    """Import what a model YAML names under `register:`, from the YAML's own folder or from installed packages.

    Raises:
        PluginError: With YAML, name and path; also when ULTRALYTICS_SAFE_LOAD is set.
    """
    for name, spec, takes in _specs(d, file):
        if safe_load():
            raise PluginError(
                f"{file}: 'register: {name}: {spec}' asks to run code, and ULTRALYTICS_SAFE_LOAD is set. "
                f"Unset it, or name the file yourself with --plugin."
            )
        from .. import registry

        target, attribute = _split(spec, name, file)
        if target.endswith(".py"):
            path = folder / target
            if not path.is_file():
                raise PluginError(
                    f"{file}: 'register: {name}: {spec}' needs {path}, which does not exist. Put the file beside the "
                    f"YAML, or mend the path."
                )
            if folder.resolve() not in path.resolve().parents:
                raise PluginError(
                    f"{file}: 'register: {name}: {spec}' leaves the YAML's folder. Move the file into {folder}, "
                    f"or name it with --plugin {path}."
                )
            try:
                module = load_file(path)
            except PluginError as exc:
                raise PluginError(f"{file}: 'register: {name}: {spec}': {exc}") from exc
        else:
            module = _installed(target, name, spec, file)
        cls = _attribute(module, attribute, name, spec, file)
        taken = registry.find(name)
        if taken is not None and taken.cls is not cls:
            raise RegistryError(
                f"{file}: 'register: {name}' ({cls.__module__}.{cls.__qualname__}) takes a name that belongs to "
                f"{taken.owner}. Choose another name in the YAML."
            )
        if cls not in _bindings:
            announce("%s: %s is %s from %s", file, name, attribute, getattr(module, "__file__", target))
        _bind(cls, takes, name, file)


def from_yaml(name: str, d: dict[str, Any], spot: str) -> type | None:
    """Return the class that a model dictionary registers under `name`, without importing anything.

    Raises:
        PluginError: The dictionary registers the name, but its code is not loaded, or is not to be used.
    """
    for n, spec, takes in _specs(d, spot):
        if n != name:
            continue
        target, attribute = _split(spec, n, spot)
        full = f"{__name__}.{Path(target).stem}" if target.endswith(".py") else target
        module = sys.modules.get(full)
        if module is None:
            raise PluginError(f"{spot}: '{name}' comes from {spec}, which is not loaded. {advice(target)}")
        if safe_load() and not full.startswith(f"{__name__}."):  # any class that happens to be imported
            raise PluginError(
                f"{spot}: 'register: {name}: {spec}' names a class of a package, and ULTRALYTICS_SAFE_LOAD is set. "
                f"Unset it, or register the class in a file that you name with --plugin."
            )
        cls = _attribute(module, attribute, n, spec, spot)
        _bind(cls, takes, n, spot)
        return cls
    return None


def binding_of(cls: type) -> Binding | None:
    """Return how a class named in a YAML is bound to its row."""
    return _bindings.get(cls)


def advice(target: str) -> str:
    """Say how to give a plug-in."""
    if target.endswith(".py"):
        return f"Give it with --plugin PATH/{Path(target).name}, or {VARIABLE}=PATH/{Path(target).name}."
    return f"Install the package that brings it, or import {target} before."


def _bind(cls: type, takes: str | None, name: str, file: str) -> None:
    from .. import registry

    try:
        registry.check_class(cls)
        if cls not in _bindings:
            _bindings[cls] = Binding.of(cls, takes)
    except RegistryError as exc:
        raise RegistryError(f"{file}: 'register: {name}': {exc}") from exc


def _specs(d: dict[str, Any], file: str) -> list[tuple[str, str, str | None]]:
    mapping = d.get("register") or {}
    if not isinstance(mapping, dict):
        raise PluginError(f"{file}: 'register:' must map names to file.py:Class, got {mapping!r}")
    specs = []
    for name, given in mapping.items():
        value: Any = given
        takes = None
        if isinstance(given, dict):
            value, takes = given.get("from"), given.get("takes")
        if not isinstance(name, str) or not isinstance(value, str):
            raise PluginError(
                f"{file}: 'register: {name}' must say file.py:Class or package.module:Class, got {value!r}"
            )
        specs.append((name, value, takes))
    return specs


def _split(spec: str, name: str, file: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*([^:]+?)\s*:\s*([A-Za-z_][\w.]*)\s*", spec)
    if match is None:
        raise PluginError(f"{file}: 'register: {name}: {spec}' must read file.py:Class or package.module:Class")
    return match.group(1), match.group(2)


def _installed(target: str, name: str, spec: str, file: str) -> types.ModuleType:
    try:
        return importlib.import_module(target)
    except ImportError as exc:
        raise PluginError(f"{file}: 'register: {name}: {spec}' cannot be imported: {exc}. {advice(target)}") from exc
    except Exception as exc:
        raise PluginError(f"{file}: 'register: {name}: {spec}' fails on import: {type(exc).__name__}: {exc}") from exc


def _attribute(module: types.ModuleType, attribute: str, name: str, spec: str, file: str) -> type:
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        classes = [k for k, v in vars(module).items() if isinstance(v, type)]
        raise PluginError(
            f"{file}: 'register: {name}: {spec}': {getattr(module, '__file__', module.__name__)} has no class "
            f"'{attribute}'.{did_you_mean(attribute, classes)} It defines {', '.join(sorted(classes)) or 'no class'}."
        )
    return found


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `yolo_attn.plugins.<stem>` among the files that the user named; last in line on the meta path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, stem = fullname.rpartition(".")
        if package != __name__ or stem.startswith("_"):
            return None
        record = None
        file = _asked.get(stem) or _from_environment(stem)
        if file is None:
            record = _memory.recall(stem)
            file = record.path if record is not None else None
        if file is None:
            raise PluginError(
                f"needs the plug-in {stem}.py, which is not here. {_memory.story(stem)}{advice(stem + '.py')}"
            )
        loader = _Loader(fullname, str(file))
        if record is not None and loader.sha256 != record.sha256:  # between two readings
            raise PluginError(f"needs the plug-in {file}, which is being changed. {advice(stem + '.py')}")
        locations = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=locations
        )


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs the very bytes whose hash it tells."""

    def __init__(self, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        try:
            self.content = Path(path).read_bytes()
        except OSError as exc:
            raise PluginError(f"the plug-in {path} cannot be read: {exc.strerror or exc}") from exc
        package = Path(path).name == "__init__.py"
        self.sha256 = _memory.digest(Path(path)) if package else _memory.digest_of(self.content)

    def get_data(self, path: str) -> bytes:
        """The content as it was read, and is hashed."""
        return self.content if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> types.CodeType | None:
        """Compile the content; a file in ``__pycache__`` could hold anything."""
        return self.source_to_code(self.content, self.path)


def _from_environment(stem: str) -> Path | None:
    for item in os.environ.get(VARIABLE, "").split(os.pathsep):
        if not item:
            continue
        path = Path(os.path.expanduser(item))
        tries = [path / f"{stem}.py", path / stem / "__init__.py"] if path.is_dir() else [path]
        if path.is_dir() and path.name == stem:
            tries.append(path / "__init__.py")
        for file in tries:
            if file.is_file() and stem in (file.stem, file.parent.name if file.name == "__init__.py" else ""):
                return file.resolve()
    return None


if not any(type(f).__qualname__ == "_Finder" and type(f).__module__ == __name__ for f in sys.meta_path):
    sys.meta_path.append(_Finder())
