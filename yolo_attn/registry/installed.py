"""Attention from installed packages: by entry point, or by a dotted name in a YAML's ``register:``.

A dotted name is somebody else's choice of code, so it reaches what was installed and nothing else: not the working
folder, not the script's folder, whatever stands first in ``sys.path``, and not Python's own library, which holds no
layer and has modules that act when they are imported.
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
    """Return the installed entry points of the group ``yolo_attn.modules``, not loaded."""
    from importlib import metadata

    points = metadata.entry_points()
    select = getattr(points, "select", None)  # a plain dictionary before Python 3.10
    return list(select(group=ENTRY_POINT_GROUP) if select else points.get(ENTRY_POINT_GROUP, ()))  # type: ignore[attr-defined]


def brings(cls: type) -> bool:
    """Whether a class comes from a package whose entry points were loaded; nobody named it."""
    return cls.__module__.partition(".")[0] in _packages


def load_entry_points() -> None:
    """Register what installed packages bring; one that cannot be used is named in a line and left out."""
    for point in entry_points():
        _packages.add(point.value.partition(":")[0].partition(".")[0].strip())
        try:
            loaded = point.load()
            if isinstance(loaded, type) and registry.find(point.name) is None:  # unless the class registered itself
                registry.register(point.name, loaded)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:  # whatever its package does, sys.exit included: it is not what was asked for
            package = getattr(getattr(point, "dist", None), "name", None) or point.value.partition(":")[0]
            why = (
                f"The installed plug-in '{point.name} = {point.value}' is left out: {type(exc).__name__}: {first_line(exc)[:300]}. "
                f"Fix or uninstall the package {package}, which brings it."
            )
            announce("%s", why)
            sources.note_missing([point.name, point.value.rpartition(":")[2].rpartition(".")[2]], why)


def import_installed(target: str) -> types.ModuleType:
    """Import a module by its dotted name from an installed package, or return it if it is imported already.

    Raises:
        PluginError: It is not installed, or is nothing to import.
        ImportError: It, or what it needs, is missing.
    """
    module = sys.modules.get(target)
    if module is not None:
        return importlib.import_module(target)  # waits where another thread still imports it
    parts = target.split(".")
    if any(not p.isidentifier() or (p.startswith("__") and p.endswith("__")) for p in parts):
        raise PluginError(f"'{target}' is no module of a package")
    homes = _homes()
    name = ""
    for part in parts:
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)  # its parents are imported: they passed
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        _check(spec, homes, top=name == part)
        importlib.import_module(name)
    return importlib.import_module(target)


def _check(spec: importlib.machinery.ModuleSpec, homes: list[str], *, top: bool) -> None:
    """Refuse a module that was not installed; the folder of a package that another finder than the path's knows passes.

    Raises:
        PluginError: With the file.
    """
    if spec.origin in ("built-in", "frozen"):
        raise PluginError(f"'{spec.name}' is Python's own and holds no attention")
    if spec.loader is None:  # a folder without code: what is in it is looked at in turn
        return
    origin = os.path.realpath(spec.origin or "")
    if spec.name.startswith(f"{PACKAGE}.") or any(_within(origin, home) for home in homes):
        return
    if top and _by_editable_install(spec):
        homes.append(str(Path(origin).parent))
        return
    python = [os.path.realpath(sysconfig.get_path(k)) for k in ("stdlib", "platstdlib")]
    if any(_within(origin, p) for p in python):
        raise PluginError(f"'{spec.name}' is Python's own and holds no attention")
    raise PluginError(
        f"{origin} belongs to no installed package, and a YAML brings code from those and from its own folder only. "
        f"Install it, put it beside the YAML and write {Path(origin).name}:CLASS, or name it with --plugin {origin}"
    )


def _homes() -> list[str]:
    """The folders that packages are installed into: Python's, and those of ``sys.path`` that hold a package's record."""
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
    """Whether a finder that an editable install put in place knows this very file."""
    for finder in sys.meta_path:
        own = finder if isinstance(finder, type) else type(finder)
        if own.__module__.startswith("__editable__"):
            found = finder.find_spec(spec.name, None)
            if found is not None and found.origin == spec.origin:
                return True
    return False


def _within(file: str, folder: str) -> bool:
    """Whether a file lies in a folder of packages; Python's library is around them, not among them."""
    return file.startswith(folder.rstrip(os.sep) + os.sep)
