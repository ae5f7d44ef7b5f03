"""Attention that users bring: files named in a YAML's ``register:``, by ``--plugin`` or by ``YOLO_ATTN_PLUGINS``.

A plug-in file becomes the module ``yolo_attn.plugins.<stem>``, so its classes pickle by a name that any process
with the kit can import again: unpickling a checkpoint imports that name, and :mod:`.finder` looks for the file.

Whose code runs: only files that the user named, either in this process (a YAML given as a path, ``--plugin``,
the environment variable) or earlier on this machine and unchanged since, by content hash (:mod:`.memory`). What
runs is what was hashed, below a package too, and no bytecode stands in for it. A YAML's dotted names reach installed
packages alone (:mod:`.installed`). What a YAML brings is announced before it runs. A checkpoint never decides which
file is run, and nothing is loaded from a YAML while ``ULTRALYTICS_SAFE_LOAD`` is set.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

from ..errors import PluginError, RegistryError, did_you_mean
from ..log import announce
from . import finder, installed, memory, registry, sources
from .finder import PLUGINS, VARIABLE, advice
from .forms import WORDS
from .safe import safe_load

__all__ = ["VARIABLE", "from_yaml", "load_file", "load_named", "load_register", "resolve", "safe_load"]

entry_points = installed.entry_points
_announced: set[tuple[str, str, str]] = set()  # what a YAML brings, said once a process
_named: set[type] = set()  # what the model YAMLs that the user gave by their path register


def load_file(path: str | os.PathLike[str]) -> types.ModuleType:
    """Run a plug-in file, once, as `yolo_attn.plugins.<stem>`, and remember that the user named it.

    Of a file that registers nothing, every ``nn.Module`` that it defines is taken under its class's name. Child
    processes find the file too: it is added to the environment variable ``YOLO_ATTN_PLUGINS``.

    Raises:
        PluginError: No such file, a stem that is no identifier or is taken by another file, or an error inside.
    """
    module = _load(path)
    _take_classes(module)
    return module


def load_named() -> None:
    """Load the plug-ins of installed packages and those that the environment names.

    One that cannot be loaded is named in a line and left out: models without it are untouched by it.
    """
    installed.load_entry_points()
    for path in finder.named():
        try:
            load_file(path)
        except PluginError as exc:
            announce("%s: %s", VARIABLE, exc)
            sources.note_missing([], f"{VARIABLE}: {exc}")


def resolve(name: str) -> str:
    """Return the name to use for what a command line or a caller names: `FILE.py:Class` is loaded and registered.

    Args:
        name: A registered name, which is returned as it is, or a file and a class in it.

    Raises:
        PluginError: The file cannot be loaded or has no such class.
        RegistryError: The class's name belongs to another one.
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
            f"the plug-in {file} needs a name that Python can import: letters, digits and _, not '{stem}'"
        )
    # Python's own import lock makes other threads wait until the module is whole.
    with finder.asking(stem, file), sources.importing():
        module = _run(f"{PLUGINS}.{stem}", file)
    other = Path(getattr(module, "__file__", "") or "")
    if other != file and memory.digest(other) != memory.digest(file):  # a copy, as in a run folder, is the same
        raise PluginError(
            f"two plug-ins are called '{stem}': {other} is loaded, {file} is asked for. Rename one of them: "
            f"checkpoints find a plug-in by its file name."
        )
    # First in line: a child process that needs the stem takes this file, whatever else the variable names.
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
    except (OSError, ValueError):  # a name that no disk takes
        pass
    package = " A folder is a plug-in by its __init__.py." if file.name == "__init__.py" else ""
    raise PluginError(
        f"plug-in file not found: {file} (looked in {Path.cwd()}).{package} Give its path with --plugin FILE."
    )


def _take_classes(module: types.ModuleType) -> None:
    """Register what a file defines, if it registers nothing itself."""
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
    sources.load_all()  # the kit's names are taken before a file's
    for cls in classes:
        try:
            registry.register(cls.__name__, cls, implied=True)
        except RegistryError as exc:
            if (cls.__name__, "", str(exc)) not in _announced:
                _announced.add((cls.__name__, "", str(exc)))
                announce("%s: %s is left out: %s", module.__file__, cls.__name__, exc)


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
    for name, spec, words in _specs(d, file):
        if safe_load():
            raise PluginError(
                f"{file}: 'register: {name}: {spec}' asks to run code, and ULTRALYTICS_SAFE_LOAD is set. "
                f"Unset it, or name the file yourself with --plugin."
            )
        target, attribute = _split(spec, name, file)
        asked = f"{file}: 'register: {name}: {spec}'"
        if target.endswith(".py"):
            path = folder / target
            if not path.is_file():
                raise PluginError(
                    f"{asked} needs {path}, which does not exist. Put the file beside the YAML, or fix the path."
                )
            if folder.resolve() not in path.resolve().parents:
                raise PluginError(
                    f"{asked} leaves the YAML's folder. Move the file into {folder}, or name it with --plugin {path}."
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
    """Say whose code runs, before it does."""
    key = (name, attribute, home)
    if key not in _announced:
        _announced.add(key)
        announce("%s: %s is %s from %s", file, name, attribute, home)


def from_yaml(name: str, d: dict[str, Any], spot: str) -> type | None:
    """Return the class that a model dictionary registers under `name`, without importing anything.

    Raises:
        PluginError: The dictionary registers the name, but its code is not loaded, or is not to be used.
    """
    for n, spec, words in _specs(d, spot):
        if n != name:
            continue
        target, attribute = _split(spec, n, spot)
        full = f"{PLUGINS}.{Path(target).stem}" if target.endswith(".py") else target
        module = sys.modules.get(full)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            module = importlib.import_module(full)  # waits until another thread has imported it whole
        if module is None:
            raise PluginError(f"{spot}: '{name}' comes from {spec}, which is not loaded. {advice(target)}")
        if safe_load() and not full.startswith(f"{PLUGINS}."):  # any class that happens to be imported
            raise PluginError(
                f"{spot}: 'register: {name}: {spec}' names a class of a package, and ULTRALYTICS_SAFE_LOAD is set. "
                f"Unset it, or register the class in a file that you name with --plugin."
            )
        cls = _attribute(module, attribute, f"{spot}: 'register: {n}: {spec}'")
        _bind(cls, words, n, spot)
        return cls
    return None


def named_by_user(cls: type) -> bool:
    """Whether a model YAML that the user gave as a path registers this class, in this process."""
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
        raise PluginError(f"{file}: 'register:' must map names to file.py:Class, got {mapping!r}")
    specs = []
    for name, given in mapping.items():
        words = dict(given) if isinstance(given, dict) else {"from": given}
        value: Any = words.pop("from", None)
        if not isinstance(name, str) or not isinstance(value, str):
            raise PluginError(
                f"{file}: 'register: {name}' must say file.py:Class or package.module:Class, got {value!r}. "
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
