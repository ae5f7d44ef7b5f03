"""Plug-ins: user code named in a YAML's ``register:``, by ``--plugin`` or by ``YOLO_ATTN_PLUGINS``.

A plug-in file becomes the module ``yolo_attn.plugins.<stem>``, so its classes pickle under a name that any process
with the kit can import: unpickling a checkpoint imports that name, and :mod:`.finder` finds the file.

Only code that the user named runs: in this process (a YAML given as a path, ``--plugin``, the environment variable),
or earlier on this machine and unchanged since, by content hash (:mod:`.memory`). The bytes that were hashed are the
bytes that run, in a package too, and bytecode never replaces them. A YAML's dotted names reach installed packages only
(:mod:`.installed`). Code that a YAML names is announced before it runs. A checkpoint never decides which file is run,
and nothing is loaded from a YAML while ``ULTRALYTICS_SAFE_LOAD`` is set.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

from ..errors import PluginError, RegistryError, did_you_mean, shown
from ..log import announce
from . import finder, installed, memory, registry, sources
from .finder import PLUGINS, VARIABLE, advice
from .forms import WORDS
from .safe import safe_load

__all__ = ["VARIABLE", "from_yaml", "load_file", "load_named", "load_register", "resolve", "safe_load"]

entry_points = installed.entry_points
_announced: set[tuple[str, str, str]] = set()  # code that a YAML names, announced once a process
_named: set[type] = set()  # the classes that YAMLs given as paths register


def load_file(path: str | os.PathLike[str]) -> types.ModuleType:
    """Run a plug-in file once, as ``yolo_attn.plugins.<stem>``, and remember that the user named it.

    If the file registers nothing, every ``nn.Module`` that it defines is registered under its class's name. Child
    processes find the file too: it is added to the environment variable ``YOLO_ATTN_PLUGINS``.

    Args:
        path: The file, or the folder of a package.

    Returns:
        The module.

    Raises:
        PluginError: The file does not exist, its name is not an identifier or is taken by another plug-in, or it
            fails on import.
    """
    module = _load(path)
    _take_classes(module)
    return module


def load_named() -> None:
    """Load the plug-ins of installed packages and those that the environment names.

    One that fails is announced and skipped, so that models without it still work.
    """
    installed.load_entry_points()
    for path in finder.named():
        try:
            load_file(path)
        except PluginError as exc:
            announce("%s: %s", VARIABLE, exc)
            sources.note_missing([], f"{VARIABLE}: {exc}")


def resolve(name: str) -> str:
    """Return the registered name of a module; ``FILE.py:Class`` is loaded and registered first.

    Args:
        name: A registered name, which is returned as it is, or ``FILE.py:Class``.

    Raises:
        PluginError: The file cannot be loaded or has no such class.
        RegistryError: The name of the class belongs to another one.
    """
    match = re.fullmatch(r"(.+\.py):([A-Za-z_]\w*)", name)
    if match is None:
        return name
    module = _load(match.group(1))
    cls = _attribute(module, match.group(2), name)
    sources.load_all()
    entry = registry.entry_of(cls)
    if entry is None:
        registry.register(cls.__name__, cls)
    return entry.name if entry is not None else cls.__name__


def _load(path: str | os.PathLike[str]) -> types.ModuleType:
    file = _file(path)
    stem = finder.stem_of(file)
    if not stem.isidentifier() or stem.startswith("_"):
        raise PluginError(
            f"the plug-in {file} needs a name that Python can import, of letters, digits and _, not '{stem}'"
        )
    # Python's import lock makes other threads wait until the module is complete.
    with finder.asking(stem, file), sources.importing():
        module = _run(f"{PLUGINS}.{stem}", file)
    other = Path(getattr(module, "__file__", "") or "")
    if other != file and memory.digest(other) != memory.digest(file):  # a copy is the same
        raise PluginError(
            f"two plug-ins are called '{stem}': {other} is loaded, {file} was requested. Rename one of them: "
            f"checkpoints find a plug-in by its file name."
        )
    # First, so that a child process finds the stem in this file, whatever else the variable names.
    home = str(file.parent if file.name == "__init__.py" else file)
    known = [str(p) for p in finder.named() if str(p) not in (home, str(file))]
    os.environ[VARIABLE] = os.pathsep.join([home, *known])
    loader = getattr(module.__spec__, "loader", None)
    if other == file and isinstance(loader, finder.Loader):
        memory.remember(stem, file, loader.sha256)
    return module


def _file(path: str | os.PathLike[str]) -> Path:
    file = Path(os.path.expanduser(path))
    try:
        if file.is_dir():
            file = file / "__init__.py"
        if file.is_file():
            return file.resolve()
    except (OSError, ValueError):  # not a valid path
        pass
    package = " A folder needs an __init__.py to be a plug-in." if file.name == "__init__.py" else ""
    raise PluginError(
        f"plug-in file not found: {file} (looked in {Path.cwd()}).{package} Load it with --plugin PATH."
    )


def _take_classes(module: types.ModuleType) -> None:
    """Register the classes that a plug-in defines, if it registers nothing itself."""
    own = f"{module.__name__}."
    if any(not e.implied for e in registry.entries_of(own)):
        return
    nn = getattr(sys.modules.get("torch"), "nn", None)
    classes = [
        value
        for name, value in vars(module).items()
        if nn is not None and isinstance(value, type) and issubclass(value, nn.Module)
        if name == value.__name__ and not name.startswith("_") and f"{value.__module__}.".startswith(own)
    ]
    if not classes and nn is not None and not any(True for _ in registry.entries_of(own)):
        announce("%s defines no nn.Module and registers nothing", module.__file__)
    sources.load_all()  # the kit's names precede a plug-in's
    for cls in classes:
        try:
            registry.register(cls.__name__, cls, implied=True)
        except RegistryError as exc:
            if (cls.__name__, "", str(exc)) not in _announced:
                _announced.add((cls.__name__, "", str(exc)))
                announce("%s: %s is skipped: %s", module.__file__, cls.__name__, exc)


def _run(name: str, file: Path) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except PluginError:
        raise
    except BaseException as exc:
        if isinstance(exc, (KeyboardInterrupt, GeneratorExit)):
            raise
        raise PluginError(f"the plug-in {file} fails on import: {_line(exc, file)}{type(exc).__name__}: {exc}") from exc


def _line(exc: BaseException, file: Path) -> str:
    """Return ``line 3: `` if the error's traceback passes through the file; empty otherwise."""
    if isinstance(exc, SyntaxError) and exc.lineno:
        return f"line {exc.lineno}: "
    line, tb = None, exc.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == str(file):
            line = tb.tb_lineno
        tb = tb.tb_next
    return f"line {line}: " if line else ""


def load_register(d: dict[str, Any], folder: Path, file: str) -> None:
    """Import what a model YAML names under ``register:``, from the YAML's own folder or from installed packages.

    Args:
        d: The model dictionary.
        folder: Folder of the YAML.
        file: Name of the YAML, for messages.

    Raises:
        PluginError: Something cannot be imported, or ULTRALYTICS_SAFE_LOAD is set.
        RegistryError: A name belongs to another module, or a class cannot be a layer.
    """
    for name, spec, words in _specs(d, file):
        if safe_load():
            raise PluginError(
                f"{file}: 'register: {name}: {spec}' would run code, but ULTRALYTICS_SAFE_LOAD is set. "
                f"Unset it, or load the file yourself with --plugin."
            )
        target, attribute = _split(spec, name, file)
        asked = f"{file}: 'register: {name}: {spec}'"
        if target.endswith(".py"):
            path = folder / target
            if not path.is_file():
                raise PluginError(
                    f"{asked} needs {path}, which does not exist. Put the file beside the YAML or fix the path."
                )
            if folder.resolve() not in path.resolve().parents:
                raise PluginError(
                    f"{asked} is outside the YAML's folder. Move the file into {folder}, or load it with --plugin {path}."
                )
            _announce(file, name, attribute, str(path.resolve()))
            try:
                module = _load(path.resolve())
            except PluginError as exc:
                raise PluginError(f"{asked}: {exc}") from exc
        else:
            _announce(file, name, attribute, target)
            module = _installed_module(target, asked)
        cls = _attribute(module, attribute, asked)
        taken = registry.find(name)
        if taken is not None and taken.cls is not cls and not taken.implied:  # a name that a file's author chose
            raise RegistryError(
                f"{file}: 'register: {name}' ({cls.__module__}.{cls.__qualname__}) takes a name that belongs to "
                f"{taken.owner}. Choose another name in the YAML."
            )
        _bind(cls, words, name, file)
        _named.add(cls)


def _announce(file: str, name: str, attribute: str, home: str) -> None:
    """Announce whose code runs, before it runs."""
    key = (name, attribute, home)
    if key not in _announced:
        _announced.add(key)
        announce("%s: %s is %s from %s", file, name, attribute, home)


def from_yaml(name: str, d: dict[str, Any], location: str) -> type | None:
    """Return the class that a model dictionary registers under a name, without running any code; None if none.

    Args:
        name: The name.
        d: The model dictionary.
        location: File and row, for messages.

    Raises:
        PluginError: The code that the name refers to is not loaded, or ULTRALYTICS_SAFE_LOAD forbids its use.
    """
    for n, spec, words in _specs(d, location):
        if n != name:
            continue
        target, attribute = _split(spec, n, location)
        full = f"{PLUGINS}.{Path(target).stem}" if target.endswith(".py") else target
        module = sys.modules.get(full)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            module = importlib.import_module(full)  # waits while another thread is importing it
        if module is None:
            raise PluginError(f"{location}: '{name}' comes from {spec}, which is not loaded. {advice(target)}")
        if safe_load() and not full.startswith(f"{PLUGINS}."):  # it could name any imported class
            raise PluginError(
                f"{location}: 'register: {name}: {spec}' names a class of a package, and ULTRALYTICS_SAFE_LOAD is set. "
                f"Unset it, or register the class in a file that you load with --plugin."
            )
        cls = _attribute(module, attribute, f"{location}: 'register: {n}: {spec}'")
        _bind(cls, words, n, location)
        return cls
    return None


def named_by_user(cls: type) -> bool:
    """Whether a YAML that the user gave as a path registers this class, in this process."""
    return cls in _named


def _bind(cls: type, words: dict[str, Any], name: str, file: str) -> None:
    try:
        registry.bind_class(cls, words)
    except RegistryError as exc:
        raise RegistryError(f"{file}: 'register: {name}': {exc}") from exc


def _specs(d: dict[str, Any], file: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Each name under ``register:``, where its class is, and what else is said of it."""
    mapping = d.get("register") or {}
    if not isinstance(mapping, dict):
        raise PluginError(f"{file}: 'register:' must map names to file.py:Class, got {shown(mapping)}")
    specs = []
    for name, given in mapping.items():
        words = dict(given) if isinstance(given, dict) else {"from": given}
        value: Any = words.pop("from", None)
        if not isinstance(name, str) or not isinstance(value, str):
            raise PluginError(
                f"{file}: 'register: {name}' must say file.py:Class or package.module:Class, got {shown(value)}. "
                f"With more to say: {name}: {{from: file.py:Class, {', '.join(WORDS)}}}"
            )
        specs.append((name, value, words))
    return specs


def _split(spec: str, name: str, file: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*([^:]+?)\s*:\s*([A-Za-z_][\w.]*)\s*", spec)
    if match is None:
        raise PluginError(f"{file}: 'register: {name}: {spec}' must read file.py:Class or package.module:Class")
    return match.group(1), match.group(2)


def _installed_module(target: str, asked: str) -> types.ModuleType:
    try:
        with sources.importing():
            return installed.import_installed(target)
    except PluginError as exc:
        raise PluginError(f"{asked}: {exc}.") from exc
    except ImportError as exc:
        raise PluginError(f"{asked} cannot be imported: {exc}. {advice(target)}") from exc
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        raise PluginError(f"{asked} fails on import: {type(exc).__name__}: {exc}") from exc


def _attribute(module: types.ModuleType, attribute: str, asked: str) -> type:
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        classes = [k for k, v in vars(module).items() if isinstance(v, type)]
        raise PluginError(
            f"{asked}: {getattr(module, '__file__', module.__name__)} has no class "
            f"'{attribute}'.{did_you_mean(attribute, classes)} It defines {', '.join(sorted(classes)) or 'no class'}."
        )
    return found
