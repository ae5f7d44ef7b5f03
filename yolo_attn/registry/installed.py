"""Plug-ins from installed packages: by entry point, or by a dotted name in a YAML's ``register:``.

A dotted name is the choice of whoever wrote the YAML, so it reaches installed packages and nothing else: neither the
working folder nor the script's folder, wherever they stand in ``sys.path``, nor the standard library, which has no
layers but modules that act on import.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

from .._name import PACKAGE
from ..errors import PluginError, first_line
from ..log import announce
from . import registry, sources

__all__ = ["ENTRY_POINT_GROUP", "brings", "entry_points", "import_installed", "load_entry_points"]

ENTRY_POINT_GROUP = "yolo_attn.modules"
_packages: set[str] = globals().get("_packages") or set()  # whose entry points were loaded; survives a reload


def entry_points() -> list[Any]:
    """Return the installed entry points of the group ``yolo_attn.modules``, without loading them."""
    from importlib import metadata

    points = metadata.entry_points()
    select = getattr(points, "select", None)  # a plain dictionary before Python 3.10
    return list(select(group=ENTRY_POINT_GROUP) if select else points.get(ENTRY_POINT_GROUP, ()))  # type: ignore[attr-defined]


def brings(cls: type) -> bool:
    """Whether a class comes from a package whose entry points were loaded, without being named by the user."""
    return cls.__module__.partition(".")[0] in _packages


def load_entry_points() -> None:
    """Register the plug-ins of installed packages. One that fails is announced and skipped."""
    for point in entry_points():
        _packages.add(point.value.partition(":")[0].partition(".")[0].strip())
        try:
            loaded = point.load()
            if isinstance(loaded, type) and registry.find(point.name) is None:  # unless the class registered itself
                registry.register(point.name, loaded)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:  # whatever the package does, sys.exit included: the user did not ask for it
            package = getattr(getattr(point, "dist", None), "name", None) or point.value.partition(":")[0]
            why = (
                f"The installed plug-in '{point.name} = {point.value}' is skipped: {type(exc).__name__}: "
                f"{first_line(exc)[:300]}. Fix or uninstall its package {package}."
            )
            announce("%s", why)
            sources.note_missing([point.name, point.value.rpartition(":")[2].rpartition(".")[2]], why)


def import_installed(target: str) -> types.ModuleType:
    """Import a module of an installed package, or return it if it is imported already.

    Args:
        target: Full name of the module.

    Raises:
        PluginError: It belongs to no installed package, or is not the name of a module.
        ImportError: It, or a module that it needs, is missing.
    """
    module = sys.modules.get(target)
    if module is not None:
        return importlib.import_module(target)  # waits while another thread is importing it
    parts = target.split(".")
    if any(not p.isidentifier() or (p.startswith("__") and p.endswith("__")) for p in parts):
        raise PluginError(f"'{target}' is not the name of a module")
    homes = _homes()
    name = ""
    for part in parts:
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)  # its parents have been checked and imported
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        _check(spec, homes, top=name == part)
        importlib.import_module(name)
    return importlib.import_module(target)


def _check(spec: importlib.machinery.ModuleSpec, homes: list[str], *, top: bool) -> None:
    """Refuse a module that is not installed. A package of an editable install passes, and its folder joins `homes`.

    Raises:
        PluginError: It is not installed; the message names the file.
    """
    if spec.origin in ("built-in", "frozen"):
        raise PluginError(f"'{spec.name}' is part of Python and has no attention modules")
    if spec.loader is None:  # a folder without code: its modules are checked in turn
        return
    origin = os.path.realpath(spec.origin or "")
    if spec.name.startswith(f"{PACKAGE}.") or any(_within(origin, home) for home in homes):
        return
    if top and _by_editable_install(spec):
        homes.append(str(Path(origin).parent))
        return
    python = [os.path.realpath(sysconfig.get_path(k)) for k in ("stdlib", "platstdlib")]
    if any(_within(origin, p) for p in python):
        raise PluginError(f"'{spec.name}' is part of Python and has no attention modules")
    raise PluginError(
        f"{origin} belongs to no installed package; a YAML may load code from installed packages and its own folder only. "
        f"Install it, put it beside the YAML and write {Path(origin).name}:CLASS, or name it with --plugin {origin}"
    )


def _homes() -> list[str]:
    """The folders that packages are installed in: Python's, and those of ``sys.path`` with a package's metadata."""
    homes = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        homes.append(site.getusersitepackages())
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    here = {os.path.realpath(p) for p in (os.curdir, os.path.dirname(script or "") or os.curdir)}
    for folder in sys.path:
        real = os.path.realpath(folder or os.curdir)
        if real not in here and any(True for end in ("dist", "egg") for _ in Path(real).glob(f"*.{end}-info")):
            homes.append(real)
    return [os.path.realpath(h) for h in homes]


def _by_editable_install(spec: importlib.machinery.ModuleSpec) -> bool:
    """Whether the finder of an editable install finds this very file."""
    for finder in sys.meta_path:
        own = finder if isinstance(finder, type) else type(finder)
        if own.__module__.startswith("__editable__"):
            found = finder.find_spec(spec.name, None)
            if found is not None and found.origin == spec.origin:
                return True
    return False


def _within(file: str, folder: str) -> bool:
    """Whether a file lies in a folder or below it."""
    return file.startswith(folder.rstrip(os.sep) + os.sep)
