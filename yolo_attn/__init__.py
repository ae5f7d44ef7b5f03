"""yolo_attn: attention for YOLO detectors, plugged into the model parser without editing a host file.

Importing this package installs the parse hook (:mod:`yolo_attn.hook.install`), unless ``YOLO_ATTN_HOOK=0`` is set in
the environment. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from . import beside
from ._version import __version__
from .registry import sources

_EXPORTS = {
    "Trainer": "training.trainer",
    "YoloAttnError": "errors",
    "adopt": "detectors.adopting",
    "attach": "detectors.attaching",
    "compare": "study.api",
    "detach": "detectors.attaching",
    "embedded_data": "training.shapes:make",
    "export_model": "export.single:export",
    "fold": "inside.fold",
    "get_module": "registry.registry",
    "insert": "model_yaml.placement",
    "install": "hook.install",
    "installed": "hook.install",
    "list_modules": "registry.registry",
    "load": "detectors.opening",
    "load_plugin": "registry.plugins:load_file",
    "plan": "model_yaml.schedule",
    "record_gates": "inside.recording",
    "register": "registry.registry",
    "remove": "model_yaml.placement",
    "search": "study.search",
    "set_start": "model_yaml.placement",
    "transfer": "weights.align",
    "uninstall": "hook.install",
    "unregister": "registry.registry",
}

__all__ = [
    "Trainer",
    "YoloAttnError",
    "__version__",
    "adopt",
    "attach",
    "compare",
    "detach",
    "embedded_data",
    "export_model",
    "fold",
    "get_module",
    "insert",
    "install",
    "installed",
    "list_modules",
    "load",
    "load_plugin",
    "plan",
    "record_gates",
    "register",
    "remove",
    "search",
    "set_start",
    "transfer",
    "uninstall",
    "unregister",
]

if TYPE_CHECKING:
    from .detectors.adopting import adopt
    from .detectors.attaching import attach, detach
    from .detectors.opening import load
    from .errors import YoloAttnError
    from .export.single import export as export_model
    from .hook.install import install, installed, uninstall
    from .inside.fold import fold
    from .inside.recording import record_gates
    from .model_yaml.placement import insert, remove, set_start
    from .model_yaml.schedule import plan
    from .registry.plugins import load_file as load_plugin
    from .registry.registry import get_module, list_modules, register, unregister
    from .study.api import compare
    from .study.search import search
    from .training.shapes import make as embedded_data
    from .training.trainer import Trainer
    from .weights.align import transfer


def __getattr__(name: str) -> Any:
    home = _EXPORTS.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(n for n in globals() if n.startswith("__") and n.endswith("__"))})


def _own_modules() -> None:
    """Import every file of ``modules``; each registers its classes."""
    import pkgutil

    package = importlib.import_module(f"{__name__}.modules")
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{info.name}")


def _plugins() -> None:
    """Load the plug-ins of installed packages, then those that the environment names."""
    importlib.import_module(f"{__name__}.registry.plugins").load_named()


# Relative paths of plug-ins are relative to the folder in which the process was launched, wherever it moves later.
_named = [item for item in os.environ.get("YOLO_ATTN_PLUGINS", "").split(os.pathsep) if item]
if not all(map(os.path.isabs, _named)):
    os.environ["YOLO_ATTN_PLUGINS"] = os.pathsep.join(os.path.abspath(os.path.expanduser(item)) for item in _named)

# The registry imports no other room: its sources are added here, the kit's own modules first, and load on first use.
beside.install(__name__, __path__)
sources.add_source("the kit's modules", _own_modules)
sources.add_source("plug-ins", _plugins)

# The hosts' patches call `kit`, which stands above every room; the hook stands below it. They are joined here.
_hook = importlib.import_module(f"{__name__}.hook.install")
_hook.hand_in(importlib.import_module(f"{__name__}.kit").KIT)
if os.environ.get("YOLO_ATTN_HOOK", "1") != "0":
    _hook.install(strict=False)
