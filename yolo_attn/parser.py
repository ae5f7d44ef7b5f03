"""The parse hook: lets a host's own `parse_model` build registered modules, in memory and reversibly.

:func:`install`, :func:`uninstall` and :func:`installed` act on every host that ``yolo_attn.patches`` knows.
``import yolo_attn`` installs; a host that is imported later is hooked at that moment.

Why: both hosts look a row's module up among their own globals and give an unknown module no channels. There is
no registry to register with, so the kit splices the two expressions that decide (see :mod:`.splice`), swapping
the function's code object in place, so that everybody who imported the parser by name earlier has it as well.
"""

from __future__ import annotations

import functools
import inspect
import io
import linecache
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .errors import HostError
from .log import LOGGER
from .splice import SpliceError, find_code, splice
from .watch import Watch

__all__ = ["Hook", "failures", "hooks", "install", "installed", "uninstall"]


# The one global injected into a host's module. It carries the kit's own import name, so that two vendored copies
# of the kit do not collide.
GLOBAL = "_" + __name__.rpartition(".")[0].replace(".", "_") + "_seams"
# The name of the same in a file that `yolo-attn patch` has put the seams into; there is nothing left to splice.
ON_DISK = GLOBAL.replace("_seams", "_rows")

_lock = threading.RLock()
_failed: dict[tuple[str, str], HostError] = {}  # by host and module


@dataclass(frozen=True)
class Hook:
    """One function of a host that runs the kit's code: who, where, and how to give it back."""

    host: str
    module: types.ModuleType
    touched: str
    function: types.FunctionType
    original: types.CodeType
    extended: types.CodeType
    undo: Callable[[], None]


_hooks: dict[types.FunctionType, Hook] = {}
_prepared: dict[tuple[str, int], Callable[[], None]] = {}


class Seams:
    """What the injected global offers to the host's functions."""

    def __init__(self) -> None:
        from . import rows

        self.find, self.place = rows.find, rows.place
        self.around: dict[str, Callable[..., Any]] = {}
        self.originals: dict[str, types.CodeType] = {}


def install(*, strict: bool = True) -> None:
    """Hook every host that is imported now, and each other one when it is imported. Twice is once.

    Args:
        strict: Raise when a host that is already imported cannot be hooked; otherwise log one warning.

    Raises:
        HostError: Names host, version and file, what was looked for, and the supported range.
    """
    from .patches import HOSTS

    with _lock:
        _watch().start()  # first: a module that another thread imports now is hooked here or there
        for host in HOSTS:
            for module in host.modules:
                if module in sys.modules:
                    _hook_module(host, module, strict=strict)


@functools.lru_cache(maxsize=1)
def _watch() -> Watch:
    from .patches import HOSTS

    return Watch([name for host in HOSTS for name in host.modules], _on_import)


def _on_import(module: types.ModuleType) -> None:
    from .patches import HOSTS

    with _lock:
        for host in HOSTS:
            if module.__name__ in host.modules:
                _hook_module(host, module.__name__, strict=False)


def uninstall() -> None:
    """Give every host back its own code objects and leave no trace. Twice is once."""
    with _lock:
        _watch().stop()
        for hook in _hooks.values():
            hook.undo()
        _hooks.clear()
        for undo in _prepared.values():
            undo()
        _prepared.clear()
        _failed.clear()


def installed() -> list[str]:
    """Return the names of the hosts whose parser is hooked now."""
    from .patches import HOSTS

    parsers = {(h.name, t.function) for h in HOSTS for t in h.touches if t.splice}
    return sorted({h.host for h in hooks() if (h.host, h.touched) in parsers})


def hooks() -> list[Hook]:
    """Return every function that runs the kit's code now."""
    with _lock:
        return [h for h in _hooks.values() if _alive(h)]


def failures() -> dict[str, HostError]:
    """Return, by host, why it could not be hooked."""
    return {host: error for (host, _), error in list(_failed.items())}


def _alive(hook: Hook) -> bool:
    """Whether the module still reaches the function (it was not reloaded or dropped), and the function the kit."""
    if sys.modules.get(hook.module.__name__) is not hook.module or hook.function.__code__ is not hook.extended:
        return False
    return _innermost(_reach(hook.module, hook.touched), hook.module, hook.touched) is hook.function


def _hook_module(host: Any, name: str, *, strict: bool) -> None:
    module = sys.modules.get(name)
    if module is None or not host.recognise(module):
        return
    try:
        _recover(host, module)
        for touch in host.touches:
            if touch.module == name and _reach(module, touch.function) is not None:
                _hook_function(host, touch, module)
        if host.prepare is not None and (host.name, id(module)) not in _prepared:
            undo = host.prepare(module)
            if undo is not None:
                _prepared[host.name, id(module)] = undo
        _failed.pop((host.name, name), None)
    except HostError as exc:
        _failed[host.name, name] = exc
        if strict:
            raise
        LOGGER.warning("%s", exc)


def _hook_function(host: Any, touch: Any, module: types.ModuleType) -> None:
    function = _innermost(_reach(module, touch.function), module, touch.function)
    old = _hooks.get(function) if function is not None else None
    if old is not None and _alive(old):
        return
    if function is None and not touch.splice:  # imported from elsewhere, as some versions have it
        return
    if function is None and not touch.defined:
        return
    if function is None:
        raise HostError(_refusal(host, module, f"{touch.function} is no plain Python function"))
    if touch.splice and ON_DISK in function.__code__.co_names:
        code = function.__code__
        _hooks[function] = Hook(host.name, module, touch.function, function, code, code, lambda: None)
        return
    seams = module.__dict__.get(GLOBAL) or Seams()
    if touch.splice:
        extended, forget = _spliced_code(host, touch, module, function)
    else:
        extended, forget = _wrapped_code(touch, function), lambda: None
        original_function = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        original_function.__kwdefaults__ = function.__kwdefaults__
        seams.around[touch.function] = functools.partial(touch.replacement, original_function)
    original = function.__code__
    seams.originals[touch.function] = original
    module.__dict__[GLOBAL] = seams

    def undo() -> None:
        if function.__code__ is extended:
            function.__code__ = original
        if _runs(extended):  # in another thread, to its end
            return
        forget()
        seams.around.pop(touch.function, None)
        seams.originals.pop(touch.function, None)
        if not seams.originals and module.__dict__.get(GLOBAL) is seams:
            del module.__dict__[GLOBAL]

    try:
        function.__code__ = extended
    except BaseException:
        undo()
        raise
    _hooks[function] = Hook(host.name, module, touch.function, function, original, extended, undo)


def _runs(code: types.CodeType) -> bool:
    """Whether some thread is within this code now."""
    for top in sys._current_frames().values():
        frame: types.FrameType | None = top
        while frame is not None:
            if frame.f_code is code:
                return True
            frame = frame.f_back
    return False


def _reach(module: types.ModuleType, path: str) -> Any:
    """What a dotted name such as `Model.__init__` means in a module, or None."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _recover(host: Any, module: types.ModuleType) -> None:
    """Take back what an earlier import of this kit extended (`importlib.reload`, a test that re-imports).

    Its seams lead to the earlier import's registry, where this import's classes are unknown.
    """
    earlier = module.__dict__.get(GLOBAL)
    if earlier is None or isinstance(earlier, Seams):
        return
    for name, code in getattr(earlier, "originals", {}).items():
        function = _innermost(_reach(module, name), module, name)
        if function is not None:
            function.__code__ = code
    del module.__dict__[GLOBAL]


def _innermost(candidate: Any, module: types.ModuleType, function: str) -> types.FunctionType | None:
    """The host's own function below any foreign wrapper, or None."""
    seen: set[int] = set()

    def walk(obj: Any) -> Iterator[types.FunctionType]:
        if id(obj) in seen or len(seen) > 64:
            return
        seen.add(id(obj))
        if isinstance(obj, functools.partial):
            yield from walk(obj.func)
        if hasattr(obj, "__wrapped__"):
            yield from walk(obj.__wrapped__)
        if isinstance(obj, types.FunctionType):
            if obj.__globals__ is module.__dict__ and obj.__module__ == module.__name__:
                yield obj
            for cell in obj.__closure__ or ():
                try:
                    yield from walk(cell.cell_contents)
                except ValueError:  # an empty cell
                    continue

    found = next(walk(candidate), None)
    if found is None:  # a wrapper that reaches the original through a global of its own
        import gc

        name = module.__name__
        mine = [
            f
            for f in gc.get_referrers(module.__dict__)
            if isinstance(f, types.FunctionType) and f.__module__ == name and f.__qualname__ == function
        ]
        found = mine[0] if len(mine) == 1 else None
    return found


def _spliced_code(
    host: Any, touch: Any, module: types.ModuleType, function: types.FunctionType
) -> tuple[types.CodeType, Callable[[], None]]:
    source, path = _source(host, module)
    try:
        untouched = find_code(compile(source, path, "exec", dont_inherit=True), touch.function)
    except SyntaxError as exc:
        raise HostError(_refusal(host, module, f"its source does not compile: {exc}")) from exc
    except SpliceError as exc:
        raise HostError(_refusal(host, module, f"could not find {exc}")) from exc
    if untouched != function.__code__:
        raise HostError(
            _refusal(
                host,
                module,
                f"the {touch.function} in memory is not the one in the file: something else has patched it, or the "
                f"file was edited after it was imported. Remove the other patch, or start a fresh process",
            )
        )
    try:
        spliced = splice(source, touch.function, GLOBAL)
    except SpliceError as exc:
        raise HostError(_refusal(host, module, f"{touch.function} has another shape: could not find {exc}")) from exc
    name = f"{path} (extended by {__name__.partition('.')[0]})"
    code = find_code(compile(spliced.source, name, "exec", dont_inherit=True), touch.function)
    # Tracebacks and inspect.getsource read this entry, and so show what runs; without a time it is never checked.
    linecache.cache[name] = (len(spliced.source), None, io.StringIO(spliced.source).readlines(), name)
    return code, lambda: linecache.cache.pop(name, None) and None


def _wrapped_code(touch: Any, function: types.FunctionType) -> types.CodeType:
    """Code of the same signature that passes every argument, with the original, to the kit's replacement.

    A function's code may only be replaced by code with as many free variables, and a method that calls `super()`
    has one, `__class__`: the new code is therefore compiled within a function that provides them.
    """
    code, name = function.__code__, function.__name__
    count = code.co_argcount
    plain, keywords = list(code.co_varnames[:count]), list(code.co_varnames[count : count + code.co_kwonlyargcount])
    rest = iter(code.co_varnames[count + code.co_kwonlyargcount :])
    star = f"*{next(rest)}" if code.co_flags & inspect.CO_VARARGS else ""
    stars = f"**{next(rest)}" if code.co_flags & inspect.CO_VARKEYWORDS else ""
    only = code.co_posonlyargcount
    given = [
        *plain[:only],
        *(["/"] if only else []),
        *plain[only:],
        star or ("*" if keywords else ""),
        *keywords,
        stars,
    ]
    passed = [*plain, star, *(f"{k}={k}" for k in keywords), stars]
    free = code.co_freevars
    text = (
        f"def _provide({', '.join(free)}):\n"
        f"    def {name}({', '.join(filter(None, given))}): {'; '.join([*free, ''])}"
        f"return {GLOBAL}.around[{touch.function!r}]({', '.join(filter(None, passed))})\n"
    )
    new = find_code(find_code(compile(text, code.co_filename, "exec", dont_inherit=True), "_provide"), name)
    return new.replace(co_firstlineno=code.co_firstlineno)  # inspect.getsource and tracebacks show the host's function


def _source(host: Any, module: types.ModuleType) -> tuple[str, str]:
    path = getattr(module, "__file__", None) or ""
    if path.endswith(".py") and Path(path).is_file():
        import tokenize

        with tokenize.open(path) as file:
            return file.read(), path
    try:
        return inspect.getsource(module), path or f"<{module.__name__}>"
    except (OSError, TypeError) as exc:
        raise HostError(_refusal(host, module, "its source is not available, and the hook is made from it")) from exc


def _refusal(host: Any, module: types.ModuleType, why: str) -> str:
    told = host.explain(module) if host.explain is not None else ""
    why = f"{why}. {told}" if told else why
    return (
        f"cannot hook {host.name} {host.version(module)} ({getattr(module, '__file__', module.__name__)}): {why}. "
        f"Supported: {host.supported()}. Rows naming registered modules will not build with this host."
    )
