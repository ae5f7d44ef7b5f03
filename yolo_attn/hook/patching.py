"""Patch one function of a host, and remove the patch.

There are two ways. Both leave a mark that every copy of the kit recognises, under whatever name it is vendored:

- :func:`wrap` sets a wrapper on a class or module, and removing it restores the original function;
- :func:`swap` replaces a function's code object in place, for functions that others import by name.

A patch that is removed while another one lies on top (a wrapper of somebody else, another copy of the kit) is switched
off and passes calls on; removing the upper one removes it as well. The code that is swapped in holds what it needs as a
constant and adds no global to the host, so a call that is running when the patch is removed can finish.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, Callable

__all__ = [
    "CONSTANT", "Patched", "bottom", "functions_below", "patches_below", "place", "put", "reach", "remove",
    "signature_lacks", "swap", "wrap",
]  # fmt: skip

MARK = "_yolo_attn_patched"  # the same in every copy of the kit
CONSTANT = "what yolo_attn puts here"  # placeholder in compiled code, replaced by the object


class Patched:
    """A patch on one function.

    Args:
        kit: Import name of the kit; a vendored copy has its own.
        original: What is restored: the function, or its code object.
        plain: A function that does what the host's did.
        replacement: Runs in its place, as ``f(plain, *args, **kwargs)``.
    """

    def __init__(self, kit: str, original: Any, plain: Callable[..., Any], replacement: Callable[..., Any]) -> None:
        self.kit, self.original, self.plain = kit, original, plain
        self.function: Any = None  # the patched function; somebody's wrapper may carry a copy of the mark
        self.inherited = False
        self._replaced = functools.partial(replacement, plain)
        self.switch(True)
        setattr(self, MARK, True)

    def switch(self, on: bool) -> None:
        """Run the replacement, or pass calls on to the original."""
        self.active = on
        self.run = self._replaced if on else self.plain


def reach(root: Any, path: str) -> Any:
    """Return the object at a dotted path such as ``Model.__init__`` below a module, or None."""
    for part in path.split("."):
        root = getattr(root, part, None)
    return root


def place(module: types.ModuleType, path: str) -> tuple[Any, str]:
    """Return where a dotted path is set, and its last name: the module, or its class that defines the method."""
    owner, _, name = path.rpartition(".")
    if not owner:
        return module, name
    cls = reach(module, owner)
    mine = [c for c in cls.__mro__ if c.__module__ == module.__name__ and name in vars(c)]
    return (mine or [cls])[0], name


def wrap(owner: Any, name: str, replacement: Callable[..., Any], kit: str) -> Patched:
    """Set a wrapper that runs ``replacement(original, *args, **kwargs)`` on a class or module; return the patch."""
    original = getattr(owner, name)
    patched = Patched(kit, original, original, replacement)
    patched.inherited = name not in vars(owner)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return patched.run(*args, **kwargs)

    patched.function = wrapper
    setattr(wrapper, MARK, patched)
    setattr(owner, name, wrapper)
    return patched


def swap(function: types.FunctionType, replacement: Callable[..., Any], kit: str) -> Patched:
    """Replace a function's code by one that runs ``replacement(original, *args, **kwargs)``; return the patch."""
    patched = Patched(kit, function.__code__, _copy_of(function), replacement)
    put(function, patched, _calling(function))
    return patched


def put(function: types.FunctionType, patched: Patched, code: types.CodeType) -> None:
    """Replace a function's code, with `patched` in place of :data:`CONSTANT`."""
    patched.function = function
    consts = tuple(patched if isinstance(c, str) and c == CONSTANT else c for c in code.co_consts)
    function.__code__ = code.replace(co_consts=consts)


def remove(owner: Any, name: str, patched: Patched) -> None:
    """Remove a patch: switch it off, then remove every patch on top that is switched off."""
    patched.switch(False)
    while owner is not None:  # a wrapper
        top = _on(vars(owner).get(name))
        if top is None or top.active:
            break
        if top.inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, top.original)
    function = patched.function
    while isinstance(function, types.FunctionType):
        below = _in_code(function.__code__)
        if below is None or below.active:
            break
        function.__code__ = below.original


def _on(function: Any) -> Patched | None:
    """The patch that a wrapper belongs to, of any copy of the kit, or None."""
    found: Any = vars(function).get(MARK) if isinstance(function, types.FunctionType) else None
    return found if found is not None and found.function is function else None


def _in_code(code: types.CodeType) -> Patched | None:
    return next((c for c in code.co_consts if getattr(c, MARK, False) is True), None)


def patches_below(candidate: Any) -> Iterator[Patched]:
    """Yield every patch on a function, also below wrappers of others."""
    for function in functions_below(candidate):
        found: Any = vars(function).get(MARK)
        if found is not None and found.function is function:
            yield found
        found = _in_code(function.__code__)
        while found is not None:
            yield found
            found = _in_code(found.original)


def bottom(code: types.CodeType) -> types.CodeType:
    """Return the host's own code below all patches."""
    found = _in_code(code)
    while found is not None:
        code = found.original
        found = _in_code(code)
    return code


def _calling(function: types.FunctionType) -> types.CodeType:
    """Code with the signature of `function` that passes every argument to the patch in place of :data:`CONSTANT`.

    A function's code can only be replaced by code with as many free variables, and a method that calls ``super()``
    has one, ``__class__``. The new code is therefore compiled inside a function that provides them.
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
        f"return {CONSTANT!r}.run({', '.join(filter(None, passed))})\n"
    )
    module = compile(text, code.co_filename, "exec", dont_inherit=True)
    provide = next(c for c in module.co_consts if isinstance(c, types.CodeType))
    new = next(c for c in provide.co_consts if isinstance(c, types.CodeType))
    return new.replace(co_firstlineno=code.co_firstlineno)  # inspect.getsource and tracebacks show the host's function


def _copy_of(function: types.FunctionType) -> types.FunctionType:
    """A copy that keeps the current code when that of `function` is replaced."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def functions_below(candidate: Any) -> Iterator[types.FunctionType]:
    """Yield a function and those that it wraps, found through ``functools.wraps``, ``partial`` and closures."""
    seen: set[int] = set()

    def walk(obj: Any) -> Iterator[types.FunctionType]:
        if id(obj) in seen or len(seen) > 64:
            return
        seen.add(id(obj))
        if isinstance(obj, types.MethodType):
            yield from walk(obj.__func__)
        if isinstance(obj, functools.partial):
            yield from walk(obj.func)
        if isinstance(obj, types.FunctionType):
            yield obj
        if hasattr(obj, "__wrapped__"):
            yield from walk(obj.__wrapped__)
        if isinstance(obj, types.FunctionType):
            for cell in obj.__closure__ or ():
                try:
                    content = cell.cell_contents
                except ValueError:  # an empty cell
                    continue
                yield from walk(content)

    return walk(candidate)


def signature_lacks(function: Any, takes: str) -> str:
    """Return the parameters of `takes` that a function does not have first and in this order; empty if it has all.

    Args:
        function: The function.
        takes: Names of parameters, separated by spaces.
    """
    wanted = takes.split()
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ", ".join(wanted)
    for k, name in enumerate(wanted):
        if k < len(parameters) and parameters[k].kind is inspect.Parameter.VAR_POSITIONAL:
            return ""  # a wrapper, or a method that passes everything on
        if k >= len(parameters) or parameters[k].name != name:
            return ", ".join(wanted[k:])
    return ""
