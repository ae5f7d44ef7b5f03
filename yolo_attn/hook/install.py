"""The parse hook: lets a host's own `parse_model` build registered modules, in memory and reversibly.

:func:`install`, :func:`uninstall` and :func:`installed` act on every host that ``yolo_attn.patches`` knows.
``import yolo_attn`` installs the hook; a host that is imported later is patched at that moment.

Both hosts look up the module of a row among their own globals and give an unknown module no channels. They have no
registry, so the kit splices two expressions of the parser (see :mod:`.splice`). It replaces the function's code object
in place, so that code which imported the parser by name earlier gets it as well. The other patches of a host are data
in ``yolo_attn.patches``; :mod:`.patching` applies and removes them. The object that they call is passed in with
:func:`hand_in`, since the hook imports no room above it.
"""

from __future__ import annotations

import functools
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .._name import PACKAGE
from ..errors import HostError
from ..log import LOGGER
from ..system.fork import Lock
from . import patching
from .refusal import refusal
from .splice import ON_DISK
from .spliced import Seams, nothing, spliced_code
from .watch import Watch

__all__ = ["Applied", "applied", "failures", "hand_in", "install", "installed", "repair", "repairing", "uninstall"]


_lock = Lock()
_failed: dict[tuple[str, str, str], HostError] = {}  # by host, module and function


@dataclass(frozen=True)
class Applied:
    """A patch that has been applied: the host, its function, and how to remove the patch."""

    host: str
    module: types.ModuleType
    function: str
    patched: patching.Patched | None
    undo: Callable[[], None]

    @property
    def alive(self) -> bool:
        """Whether the patch still works: the module was not reloaded or dropped, and its function still runs the kit."""
        if sys.modules.get(self.module.__name__) is not self.module:
            return False
        found = patching.reach(self.module, self.function)
        if self.patched is None:  # spliced in the file itself
            return found is not None
        return self.patched.active and self.patched in patching.patches_below(found)


# Kept when this module is reloaded, since the patches are still to be removed.
_applied: list[Applied] = globals().get("_applied", [])
_prepared: dict[tuple[str, int], Callable[[], None]] = globals().get("_prepared", {})
_kit: Any = globals().get("_kit")
_repairing: bool = globals().get("_repairing", False)


def hand_in(kit: Any) -> None:
    """Set the object that patches call, a :class:`yolo_attn.patches.Kit` that also resolves rows."""
    global _kit
    _kit = kit


def install(*, strict: bool = True) -> None:
    """Patch every host that is imported, and each other one when it is imported. Repeated calls have no effect.

    Args:
        strict: Raise if a host that is already imported cannot be patched; otherwise log a warning.

    Raises:
        HostError: A host cannot be patched. The message names its version and file, what was looked for, and the
            supported versions.
    """
    from ..patches import HOSTS

    with _lock:
        _watch().start()  # first, so that a module which another thread imports now is not missed
        _applied[:] = [h for h in _applied if h.patched is None or h.patched.active]
        for host in HOSTS:
            for module in host.modules:
                if module in sys.modules:
                    _patch_module(host, module, strict=strict)


def repair() -> None:
    """Apply the repairs of old hosts, which have nothing to do with attention, until :func:`uninstall`.

    The kit's commands do so; importing the kit does not.
    """
    global _repairing
    with _lock:
        _repairing = True
        install(strict=False)


def repairing() -> bool:
    """Whether repairs are applied."""
    return _repairing


@functools.lru_cache(maxsize=1)
def _watch() -> Watch:
    from ..patches import HOSTS

    return Watch([name for host in HOSTS for name in host.modules], _on_import)


def _on_import(module: types.ModuleType) -> None:
    from ..patches import HOSTS

    with _lock:
        for host in HOSTS:
            if module.__name__ in host.modules:
                _patch_module(host, module.__name__, strict=False)


def uninstall() -> None:
    """Restore every function of every host. Repeated calls have no effect."""
    global _repairing
    with _lock:
        _watch().stop()
        _repairing = False
        while _applied:
            _applied.pop().undo()
        for undo in _prepared.values():
            undo()
        _prepared.clear()
        _failed.clear()


def installed() -> list[str]:
    """Return the names of the hosts whose parser is patched."""
    from ..patches import HOSTS

    parsers = {(h.name, h.patches[0].function) for h in HOSTS}
    return sorted({h.host for h in applied() if (h.host, h.function) in parsers})


def applied() -> list[Applied]:
    """Return the patches that are applied and still work."""
    with _lock:
        return [h for h in _applied if h.alive]


def failures() -> dict[str, HostError]:
    """Return, by host, the error of each patch that could not be applied."""
    found: dict[str, HostError] = {}
    for (host, _, _), error in list(_failed.items()):
        found[host] = HostError(f"{found[host]} {error}") if host in found else error
    return found


def _patch_module(host: Any, name: str, *, strict: bool) -> None:
    module = sys.modules.get(name)
    if module is None or not host.recognise(module):
        return
    errors = []
    for patch in (*host.patches, *(host.repairs if _repairing else ())):
        if patch.module != name:
            continue
        key = (host.name, name, patch.function)
        try:
            _patch(host, patch, module)
            _failed.pop(key, None)
        except HostError as exc:
            _failed[key] = exc
            errors.append(exc)
            if patch.splice:  # the other patches of this module are useless without it
                break
    else:
        if name == host.parser:
            errors += _absent(host, module)
            _prepare(host, module, host.prepare)
    if _repairing and name in host.repaired:
        _prepare(host, module, host.repair)
    for error in errors:
        if strict:
            raise error
        LOGGER.warning("%s", error)


def _prepare(host: Any, module: types.ModuleType, prepare: Any) -> None:
    if prepare is not None and (host.name, id(module)) not in _prepared:
        undo = prepare(_kit, module)
        if undo is not None:
            _prepared[host.name, id(module)] = undo


def _root(host: Any, module: types.ModuleType) -> Path:
    """The folder of a host's modules."""
    depth = module.__name__[len(host.prefix) :].count(".")
    return Path(module.__file__ or "").absolute().parents[depth]


def _absent(host: Any, module: types.ModuleType) -> list[HostError]:
    """Errors for the modules that should be patched and that this version does not have."""
    root, errors = _root(host, module), []
    for patch in host.patches:
        path = root.joinpath(*patch.module[len(host.prefix) :].split("."))
        known = any(path.parent.glob(f"{path.name}.*")) or path.is_dir() or not (module.__file__ or "").endswith(".py")
        if not known and not (patch.unless is not None and patch.unless(root)):
            error = HostError(refusal(host, module, f"it has no module {patch.module}, for {patch.function}"))
            _failed[host.name, patch.module, patch.function] = error
            errors.append(error)
    return errors


def _patch(host: Any, patch: Any, module: types.ModuleType) -> None:
    found = patching.reach(module, patch.function)
    if found is None:
        if patch.unless is not None and patch.unless(_root(host, module)):
            return
        raise HostError(refusal(host, module, f"it has no {patch.function}"))
    for patched in list(patching.patches_below(found)):
        if patched.kit != PACKAGE or hasattr(patched, "kits"):
            continue
        if any(h.patched is patched for h in _applied):
            return
        # by an earlier import of this kit, whose registry does not have the classes of this one
        patching.remove(*patching.place(module, patch.function), patched)
        found = patching.reach(module, patch.function)
    function = _own(host, patch, module, found) if patch.by_name else None
    if patch.by_name and function is None:  # imported from another module, where it is patched
        return
    lacks = patching.signature_lacks(found, patch.takes)
    if lacks:
        raise HostError(refusal(host, module, f"{patch.function} does not have the parameter {lacks} at its place"))
    if patch.splice and function is not None:
        _splice(host, patch, module, function)
        return
    replacement = functools.partial(patch.replacement, _kit)
    if function is not None:
        patched = patching.swap(function, replacement, PACKAGE)
        owner, name = None, ""
    else:
        owner, name = patching.place(module, patch.function)
        patched = patching.wrap(owner, name, replacement, PACKAGE)
    undo = functools.partial(patching.remove, owner, name, patched)
    _applied.append(Applied(host.name, module, patch.function, patched, undo))


def _own(host: Any, patch: Any, module: types.ModuleType, found: Any) -> types.FunctionType | None:
    """The host's own function below wrappers of others; None if it belongs to another patched module."""
    from ..patches import HOSTS

    home = getattr(found, "__module__", None)
    for function in patching.functions_below(found):
        if function.__globals__ is module.__dict__ and function.__module__ == module.__name__:
            return function
        for name in function.__code__.co_names:  # a wrapper that calls the original through a global
            named: Any = function.__globals__.get(name)
            mine = isinstance(named, types.FunctionType) and named.__globals__ is module.__dict__
            if mine and named.__qualname__ == patch.function:
                return named
    if home != module.__name__ and any(home in other.modules for other in HOSTS):
        return None
    raise HostError(
        refusal(
            host,
            module,
            f"{patch.function} is not the host's own Python function but {found!r}, and the function that it wraps "
            f"cannot be found. Import {PACKAGE} before it is wrapped, or wrap it with functools.wraps",
        )
    )


def _splice(host: Any, patch: Any, module: types.ModuleType, function: types.FunctionType) -> None:
    below = next(patching.patches_below(function), None)
    if ON_DISK in function.__code__.co_names:
        if not any(h.module is module and h.patched is None for h in _applied):
            _applied.append(Applied(host.name, module, patch.function, None, nothing))
        return
    seams: Any = below if below is not None and below.active and hasattr(below, "kits") else None
    forget: Callable[[], None] = nothing
    if seams is None:
        code, forget = spliced_code(host, patch, module, function)
        seams = Seams(PACKAGE, function.__code__)
        seams.join(PACKAGE, _kit)
        patching.put(function, seams, code)
    elif seams.kits.get(PACKAGE) is not _kit or not any(h.patched is seams for h in _applied):
        seams.join(PACKAGE, _kit)
    else:
        return
    kit = _kit

    def undo() -> None:
        if seams.leave(PACKAGE, kit):
            patching.remove(None, "", seams)
            forget()

    _applied.append(Applied(host.name, module, patch.function, seams, undo))
