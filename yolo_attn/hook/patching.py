"""How one function of a host comes to run the kit's code, and how the host gets it back.

Two ways, both under a mark that every copy of the kit knows, vendored under another name or not:

- :func:`wrap` sets a wrapper on a class or a module and puts the very same function back;
- :func:`swap` exchanges a function's code object in place, for functions that others import by name.

A patch that is taken back while another lies on it (somebody's wrapper, another copy of the kit) is switched off and
only passes calls on. Whoever takes the upper one off then takes this one off too. The code that is swapped in carries
what it needs as a constant, and adds no global to the host: it runs to its end whenever the patch is taken back.
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
CONSTANT = "what yolo_attn puts here"  # stands in compiled code until the object takes its place


class Patched:
    """One function that runs the kit's code.

    Args:
        kit: The import name of the kit; a vendored copy has one of its own.
        original: What is put back: the function, or its code object.
        plain: The host's own doing, as a function.
        replacement: Run in its place, as ``f(plain, *args, **kwargs)``.
    """

    def __init__(self, kit: str, original: Any, plain: Callable[..., Any], replacement: Callable[..., Any]) -> None:
        self.kit, self.original, self.plain = kit, original, plain
        self.function: Any = None  # what stands there now; a copy of our mark on somebody's wrapper is none
        self.inherited = False
        self._replaced = functools.partial(replacement, plain)
        self.switch(True)
        setattr(self, MARK, True)

    def switch(self, on: bool) -> None:
        """Run the replacement, or pass calls on."""
        self.active = on
        self.run = self._replaced if on else self.plain


def reach(root: Any, path: str) -> Any:
    """What a dotted name such as `Model.__init__` means in a module, or None."""
    for part in path.split("."):
        root = getattr(root, part, None)
    return root


def place(module: types.ModuleType, path: str) -> tuple[Any, str]:
    """Where a dotted name is set: the module, or the class of the module's own that defines the method."""
    owner, _, name = path.rpartition(".")
    if not owner:
        return module, name
    cls = reach(module, owner)
    mine = [c for c in cls.__mro__ if c.__module__ == module.__name__ and name in vars(c)]
    return (mine or [cls])[0], name


def wrap(owner: Any, name: str, replacement: Callable[..., Any], kit: str) -> Patched:
    """Set a wrapper that runs ``replacement(original, *args, **kwargs)`` on a class or module; return its patch."""
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
    """Give a function code that runs ``replacement(original, *args, **kwargs)``; return its patch."""
    patched = Patched(kit, function.__code__, _copy_of(function), replacement)
    put(function, patched, _calling(function))
    return patched


def put(function: types.FunctionType, patched: Patched, code: types.CodeType) -> None:
    """Give a function other code, in which `patched` stands for the constant."""
    patched.function = function
    consts = tuple(patched if isinstance(c, str) and c == CONSTANT else c for c in code.co_consts)
    function.__code__ = code.replace(co_consts=consts)


def remove(owner: Any, name: str, patched: Patched) -> None:
    """Take a patch back: switch it off, and clear away whatever is switched off on top."""
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
    """The patch that a wrapper is, by whatever copy of the kit; None if it is none."""
    found: Any = vars(function).get(MARK) if isinstance(function, types.FunctionType) else None
    return found if found is not None and found.function is function else None


def _in_code(code: types.CodeType) -> Patched | None:
    return next((c for c in code.co_consts if getattr(c, MARK, False) is True), None)


def patches_below(candidate: Any) -> Iterator[Patched]:
    """Every patch on a function, below whatever else lies on it."""
    for function in functions_below(candidate):
        found: Any = vars(function).get(MARK)
        if found is not None and found.function is function:
            yield found
        found = _in_code(function.__code__)
        while found is not None:
            yield found
            found = _in_code(found.original)


def bottom(code: types.CodeType) -> types.CodeType:
    """The host's own code below whatever was swapped in."""
    found = _in_code(code)
    while found is not None:
        code = found.original
        found = _in_code(code)
    return code


def _calling(function: types.FunctionType) -> types.CodeType:
    """Code of the same signature as `function` that passes every argument to the patch that stands for the constant.

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
        f"return {CONSTANT!r}.run({', '.join(filter(None, passed))})\n"
    )
    module = compile(text, code.co_filename, "exec", dont_inherit=True)
    provide = next(c for c in module.co_consts if isinstance(c, types.CodeType))
    new = next(c for c in provide.co_consts if isinstance(c, types.CodeType))
    return new.replace(co_firstlineno=code.co_firstlineno)  # inspect.getsource and tracebacks show the host's function


def _copy_of(function: types.FunctionType) -> types.FunctionType:
    """A function that does what this one does now, whatever code this one is given."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def functions_below(candidate: Any) -> Iterator[types.FunctionType]:
    """A function and those that it wraps: as `functools.wraps` and `partial` note them, and in closures."""
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
    """Which of the parameters named in `takes`, the first ones in this order, a function does not have; empty if none."""
    wanted = takes.split()
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ", ".join(wanted)
    for k, name in enumerate(wanted):
        if k < len(parameters) and parameters[k].kind is inspect.Parameter.VAR_POSITIONAL:
            return ""  # a wrapper, or a method that hands everything on
        if k >= len(parameters) or parameters[k].name != name:
            return ", ".join(wanted[k:])
    return ""
