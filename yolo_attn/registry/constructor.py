"""The constructor of a module: which arguments the graph provides, and which are left to the row."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from .parameters import PLAIN, sensible

__all__ = ["Constructor"]


@dataclass(frozen=True)
class Constructor:
    """The signature of a class, and which of its parameters the graph provides.

    Attributes:
        takes: What the graph provides, as words: none, ``channels``, ``c1 c2`` or ``c1 c2 n``.
        signature: Signature of the constructor.
        by_name: The parameters that receive it, where they are not the first ones.
    """

    takes: tuple[str, ...]
    signature: inspect.Signature
    by_name: tuple[str, ...] = ()

    @property
    def is_block(self) -> bool:
        """Whether the YAML row states the output channels."""
        return "c2" in self.takes

    def lead(self, *values: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments that pass on what the graph provides.

        Args:
            values: One for each word of `takes`; further ones are ignored.
        """
        given = list(values)[: len(self.takes)]
        return ([], dict(zip(self.by_name, given))) if self.by_name else (given, {})

    def taken_names(self) -> list[str]:
        """Return the parameters that the graph provides."""
        return list(self.by_name or list(self.signature.parameters)[: len(self.takes)])

    def option_names(self) -> list[str]:
        """Return the options in the order of a row's numbers: positional parameters, then keyword-only ones."""
        rest = [p for p in self.signature.parameters.values() if p.name not in self.taken_names()]
        return [p.name for p in rest if p.kind in PLAIN] + [p.name for p in rest if p.kind is p.KEYWORD_ONLY]

    def room(self) -> int:
        """Return the number of positional parameters."""
        return sum(p.kind in PLAIN for p in self.signature.parameters.values())

    def binds(self, args: list[Any]) -> bool:
        """Whether the constructor accepts these options by position."""
        lead, led = self.lead(*([1] * len(self.takes)))
        try:
            self.signature.bind(*lead, *args, **led)
        except TypeError:
            return False
        return True

    def options(self) -> str:
        """Return the arguments that a row may give, as a phrase for messages."""
        taken = self.taken_names()
        rest = [
            str(p.replace(annotation=inspect.Parameter.empty))
            for p in self.signature.parameters.values()
            if p.name not in taken
        ]
        head = "it takes the output channels first, then " if self.is_block else "it takes "
        return head + (", ".join(rest) if rest else "no arguments")

    def example(self, name: str, channels: int) -> str:
        """Return a row's arguments that give one option by name, for messages.

        Args:
            name: The option.
            channels: Input channels, which bound the example's value.
        """
        parameter = self.signature.parameters.get(name) or inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
        return f"[{{{name}: {sensible(parameter, channels)}}}]"

    def remedy(self, args: list[Any], kwargs: dict[str, Any], channels: int | list[int]) -> str:
        """Return how to write the options that are missing and have no default; empty if none is missing."""
        given = self.signature.bind_partial(*args[: self.room()]).arguments.keys() | kwargs.keys()
        missing = [
            p.name
            for p in self.signature.parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in given
        ]
        if not missing:
            return ""
        width = channels if isinstance(channels, int) else min(channels)
        parameters = self.signature.parameters
        return f"write e.g. [{{{', '.join(f'{m}: {sensible(parameters[m], width)}' for m in missing)}}}]; "
