"""Call a user's module that takes or returns something other than one map: sequences, several inputs, several outputs.

A host calls every layer with one map, or with a list of maps if the row's ``from`` is a list, and expects one map. A
module that differs is not wrapped, which would rename its weights; its instance gets a ``forward`` that converts
(:class:`Between`). So its class, its ``state_dict`` and its pickle do not change.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Callable

from .._name import PACKAGE
from ..errors import RegistryError, did_you_mean, shown
from .parameters import PLAIN, is_number

__all__ = [
    "LAYOUTS", "WORDS", "Between", "Calls", "Form", "OutChannels", "adapt", "check_words", "is_users", "out_channels"
]  # fmt: skip

LAYOUTS = ("map", "sequence", "last")
WORDS = ("takes", "out_channels", "layout", "inputs", "output", "copy")  # of an entry of `register:`, beside `from`
_SIZE = re.compile(r"h|w|height|width|h_?in|w_?in|h_?sp|w_?sp|ht|wd", re.IGNORECASE)
_RATIO = re.compile(r"(c1|channels)\s*([*/])\s*([1-9]\d{0,3})")


@dataclass(frozen=True)
class Form:
    """How a module is called, if not with one map to return one map.

    Args:
        layout: Layout of input and output: ``map`` (B, C, H, W), ``sequence`` (B, H*W, C) or ``last`` (B, H, W, C).
        inputs: Number of maps that `forward` takes as separate arguments; with a single `from`, the same map each time.
        output: Index of the output that is passed on, from 0, if there are several.
        copy: Whether it gets a copy of its input, because it changes it in place.

    Raises:
        RegistryError: A value is not one of these.
    """

    layout: str = "map"
    inputs: int | None = None
    output: int | None = None
    copy: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            hint = did_you_mean(str(self.layout), LAYOUTS)
            raise RegistryError(
                f"layout={shown(self.layout)} is none of 'map' (B, C, H, W), 'sequence' (B, H*W, C), 'last' (B, H, W, C){hint}"
            )
        for name, least in (("inputs", 1), ("output", 0)):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value >= least):
                raise RegistryError(f"{name}={shown(value)} is not an integer of at least {least}")
        if not isinstance(self.copy, bool):
            raise RegistryError(f"copy={shown(self.copy)} is neither True nor False")

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Form:
        """Return the form that an entry states."""
        return cls(**{f.name: words[f.name] for f in fields(cls) if words.get(f.name) is not None})


def check_words(words: Mapping[Any, Any]) -> None:
    """Check the keys of an entry under ``register:``.

    Raises:
        RegistryError: A key is unknown; the message names it and the known ones.
    """
    for word in words:
        if word not in WORDS:
            raise RegistryError(
                f"has {shown(word)}, which is none of from, {', '.join(WORDS)}.{did_you_mean(str(word), WORDS)}"
            )
    if not isinstance(words.get("takes", ""), str):
        raise RegistryError(f"takes={shown(words['takes'])} is none of '', 'channels', 'c1 c2', 'c1 c2 n'")


@dataclass(frozen=True)
class OutChannels:
    """The output channels of a module as an entry states them: a number, or a fraction of the input's (``c1/2``)."""

    stated: Any

    def __post_init__(self) -> None:
        number = is_number(self.stated) and self.stated > 0
        if not number and not (isinstance(self.stated, str) and _RATIO.fullmatch(self.stated.strip())):
            raise RegistryError(
                f"out_channels={shown(self.stated)} is neither a number of channels nor such as 'c1/2' or 'c1*2'"
            )

    def __call__(self, channels: Any, *_: Any, **__: Any) -> int:
        """Return the output channels for the input channels; those of several inputs are added."""
        if not isinstance(self.stated, str):
            return int(self.stated)
        match = _RATIO.fullmatch(self.stated.strip())
        assert match is not None
        whole, by = sum(channels) if isinstance(channels, list) else channels, int(match.group(3))
        return int(whole * by if match.group(2) == "*" else whole // by)


@dataclass(frozen=True)
class Calls:
    """How the signature of a class's ``forward`` says that it is called.

    Args:
        needed: Names of its required parameters, without sizes.
        most: Largest number of maps that it takes; None for any number.
        sizes: Whether it takes height and width after its maps.
    """

    needed: tuple[str, ...] = ("x",)
    most: int | None = 1
    sizes: bool = False

    @classmethod
    def of(cls, target: Any) -> Calls:
        """Return it for a class; if the signature is not available, one map."""
        try:
            parameters = [*inspect.signature(target.forward).parameters.values()][1:]
        except (TypeError, ValueError, AttributeError):
            return cls()
        plain = [p for p in parameters if p.kind in PLAIN]
        needed = [p.name for p in plain if p.default is p.empty]
        sizes = len(needed) > 2 and all(_SIZE.fullmatch(n) for n in needed[-2:])
        maps = needed[:-2] if sizes else needed
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return cls(tuple(maps), None, sizes)
        return cls(tuple(maps), len(maps) if sizes else len(plain), sizes)

    def one_by_one(self, count: int, form: Form | None) -> bool:
        """Whether `count` maps are passed as separate arguments and not as a list."""
        if form is not None and form.inputs is not None:
            return form.inputs > 1
        if len(self.needed) > 1 or self.most is None:
            return len(self.needed) <= count and (self.most is None or count <= self.most)
        return False


class Between:
    """A module's ``forward`` as the host calls it.

    Args:
        module: The module; its own ``forward`` is called.
        form: How it is called.
        spread: Whether it takes several inputs as separate arguments.
        sizes: Whether it takes height and width after them.
    """

    def __init__(self, module: Any, form: Form, *, spread: bool = False, sizes: bool = False) -> None:
        own = vars(module).get("forward")
        self.module = module
        self.inner: Any = own.inner if isinstance(own, Between) else own
        self.layout, self.output, self.copy = form.layout, form.output, form.copy
        self.times = form.inputs or 1
        self.spread, self.sizes = spread, sizes

    def __call__(self, x: Any) -> Any:
        """Return one map, (B, C, H, W), for one or for a list of them."""
        maps = list(x) if isinstance(x, (list, tuple)) else [x]
        height, width = maps[0].shape[-2:]
        if self.copy:
            maps = [m.clone() for m in maps]
        maps = [self._into(m) for m in maps]
        if self.spread and len(maps) == 1:
            maps = maps * self.times
        given = maps if self.spread or not isinstance(x, (list, tuple)) else [maps]
        if self.sizes:
            given = [*given, height, width]
        y = self.inner(*given) if self.inner is not None else type(self.module).forward(self.module, *given)
        if self.output is not None:
            y = y[self.output]
        return self._back(y, height, width)

    def _into(self, x: Any) -> Any:
        if self.layout == "sequence":
            return x.flatten(2).transpose(1, 2)
        return x.permute(0, 2, 3, 1) if self.layout == "last" else x

    def _back(self, y: Any, height: Any, width: Any) -> Any:
        if self.layout == "sequence":
            return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], height, width)
        return y.permute(0, 3, 1, 2) if self.layout == "last" else y


def adapt(module: Any, form: Form | None, count: int = 0) -> Any:
    """Change a module in place so that it can be called as the host calls it, and return it.

    Args:
        module: A layer that was just built.
        form: How it is called, by its entry; None if the entry does not say.
        count: Number of inputs in a list `from`; 0 for a single one.
    """
    if not is_users(type(module)):
        return module
    calls = Calls.of(type(module))
    spread = calls.one_by_one(count, form) if count else form is not None and (form.inputs or 1) > 1
    if spread or calls.sizes or (form is not None and form != Form()):
        module.forward = Between(module, form or Form(), spread=spread, sizes=calls.sizes)
    return module


def out_channels(stated: Any) -> Callable[..., int] | None:
    """Return the function for stated output channels: a function itself, a number, a ratio, or None."""
    return stated if stated is None or callable(stated) else OutChannels(stated)


def is_users(cls: type) -> bool:
    """Whether a registered class is a user's and not the kit's."""
    return not cls.__module__.startswith(f"{PACKAGE}.modules.")
