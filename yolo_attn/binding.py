"""How a YAML row's numbers become a module's constructor arguments.

What a class is given is read off its constructor: a first parameter such as ``channels`` receives the true
input channels; ``c2`` next makes it a block whose YAML number is scaled by the host's rule; ``n`` after that
receives the repeats, as with C3. A module without channel parameter gets none.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Callable

from .errors import RegistryError

__all__ = ["Binding", "Call", "Mismatch"]

CHANNELS = frozenset(
    [
        "channels",
        "channel",
        "in_channels",
        "in_channel",
        "input_channels",
        "num_channels",
        "gate_channels",
        "c1",
        "ch",
        "c",
        "dim",
        "in_dim",
        "inc",
        "inp",
        "in_planes",
        "inplanes",
        "planes",
        "in_ch",
        "in_c",
        "in_features",
        "d_model",
    ]
)
OUT_CHANNELS = frozenset(
    [
        "c2",
        "out_channels",
        "out_channel",
        "output_channels",
        "oup",
        "outc",
        "out_planes",
        "outplanes",
        "out_ch",
        "out_c",
        "out_dim",
    ]
)
REPEATS = frozenset({"n"})


class Mismatch(Exception):
    """The row's numbers do not fit; the parser adds file and row."""


@dataclass(frozen=True)
class Call:
    """What the parser continues with: positional arguments, keyword arguments, output channels, repeats."""

    args: list[Any]
    kwargs: dict[str, Any]
    c2: int
    n: int


@dataclass(frozen=True)
class Binding:
    """What a constructor takes from the graph: nothing, ``channels``, ``c1 c2`` or ``c1 c2 n``."""

    takes: tuple[str, ...]
    signature: inspect.Signature
    out_channels: Callable[..., int] | None = None

    @classmethod
    def of(cls, target: type, takes: str | None = None, out_channels: Callable[..., int] | None = None) -> Binding:
        """Read the binding off `target`'s constructor, or take it from `takes`."""
        try:
            signature = inspect.signature(target)
        except (TypeError, ValueError) as exc:
            raise RegistryError(f"cannot read the constructor of {target!r}: {exc}") from exc
        if takes is not None:
            words = tuple(takes.replace(",", " ").split())
            if words not in ((), ("channels",), ("c1", "c2"), ("c1", "c2", "n")):
                raise RegistryError(f"takes={takes!r} is none of '', 'channels', 'c1 c2', 'c1 c2 n'")
            return cls(words, signature, out_channels)
        names = [
            p.name
            for p in signature.parameters.values()
            if p.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        if not names or names[0].lower() not in CHANNELS:
            return cls((), signature, out_channels)
        if len(names) < 2 or names[1].lower() not in OUT_CHANNELS:
            return cls(("channels",), signature, out_channels)
        if len(names) < 3 or names[2] not in REPEATS:
            return cls(("c1", "c2"), signature, out_channels)
        return cls(("c1", "c2", "n"), signature, out_channels)

    @property
    def is_block(self) -> bool:
        """Whether the YAML row states the output channels."""
        return "c2" in self.takes

    def bind(self, row_args: list[Any], channels: int | list[int], n: int, widen: Callable[[Any], Any]) -> Call:
        """Turn a row's arguments into a call.

        Args:
            row_args: The row's fourth column; a trailing mapping holds keyword arguments.
            channels: What arrives: a number, or one for each input of a list `from`.
            n: The repeats after depth scaling.
            widen: The host's own width rule.

        Raises:
            Mismatch: With what the row says and what the graph says.
        """
        args = list(row_args)
        kwargs = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
        if any(not isinstance(k, str) for k in kwargs):
            raise Mismatch(f"keyword arguments need names, got {kwargs!r}")
        if self.is_block:
            c1, c2 = channels, self._stated_width(args, kwargs, channels, widen)
            if n > 1 and "n" not in self.takes and c1 != c2:
                raise Mismatch(f"repeated {n} times, but it turns {c1} channels into {c2}; use one row for each")
            lead: list[Any] = [c1, c2]
            if "n" in self.takes:
                lead, n = [*lead, n], 1
            call = Call([*lead, *args], kwargs, c2, n)
        else:
            self._drop_nominal_width(args, channels, widen)
            lead = [channels] if self.takes else []
            call = Call([*lead, *args], kwargs, 0, n)
        call = self._name_the_rest(call)
        try:
            self.signature.bind(*call.args, **call.kwargs)
        except TypeError as exc:
            raise Mismatch(f"{exc}; {self.options()}") from exc
        if self.is_block:
            return call
        return Call(call.args, call.kwargs, self._output(call, channels), n)

    def _name_the_rest(self, call: Call) -> Call:
        """Hand surplus positional numbers to keyword-only options in their order: `[1024, 8]` is reduction 8."""
        kinds = [p.kind for p in self.signature.parameters.values()]
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            return call
        room = sum(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)
        surplus = call.args[room:]
        options = [p.name for p in self.signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
        if not surplus or len(surplus) > len(options):
            return call
        named = dict(zip(options, surplus))
        twice = sorted(named.keys() & call.kwargs.keys())
        if twice:
            raise Mismatch(f"{', '.join(twice)} is given twice, by position and by name")
        return Call(call.args[:room], {**named, **call.kwargs}, call.c2, call.n)

    def _stated_width(self, args: list[Any], kwargs: dict[str, Any], channels: Any, widen: Callable[[Any], Any]) -> int:
        if args:
            stated = args.pop(0)
            if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
                raise Mismatch(f"the first argument is the number of output channels before scaling, got {stated!r}")
            return int(widen(stated))
        raise Mismatch("the number of output channels is missing: it is the first argument of the row, e.g. [256]")

    def _drop_nominal_width(self, args: list[Any], channels: int | list[int], widen: Callable[[Any], Any]) -> None:
        """Remove a leading nominal width if it agrees with the graph; field habit writes one, nothing needs it."""
        if args and isinstance(args[0], float) and args[0].is_integer():  # 1024.0
            args[0] = int(args[0])
        if not args or isinstance(args[0], bool) or not isinstance(args[0], int) or isinstance(channels, list):
            return
        if not self.takes and not self._channel_free_extra(args):
            return
        stated = args[0]
        scaled = widen(stated)
        if channels not in (scaled, stated):
            raise Mismatch(
                f"the row says {stated} channels, {scaled} after width scaling, but {channels} arrive. "
                f"Leave the number out: the kit reads it off the graph. "
                f"Other arguments go by name, e.g. [{{{self._first_option()}: {stated}}}]"
            )
        args.pop(0)

    def _channel_free_extra(self, args: list[Any]) -> bool:
        """Whether a module without channel parameter is given one more number than its constructor has room for."""
        try:
            self.signature.bind(*args)
        except TypeError:
            return True
        # SimAM([1024]): 1024 would become e_lambda and the gate a constant; a nominal width is never small
        return args[0] >= 8

    def _first_option(self) -> str:
        names = list(self.signature.parameters)[len(self.takes) :]
        return names[0] if names else "option"

    def _output(self, call: Call, channels: int | list[int]) -> int:
        if self.out_channels is not None:
            return int(self.out_channels(*call.args, **call.kwargs))
        if isinstance(channels, list):
            if len(set(channels)) != 1:
                raise Mismatch(
                    f"it keeps the number of channels, but its inputs have {channels}; "
                    f"make them equal with a 1x1 Conv row before it"
                )
            return channels[0]
        return channels

    def options(self) -> str:
        """Return the arguments that a row may give, as one phrase."""
        skip = len(self.takes)
        rest = [
            str(p.replace(annotation=inspect.Parameter.empty)) for p in list(self.signature.parameters.values())[skip:]
        ]
        head = "it takes the output channels first, then " if self.is_block else "it takes "
        return head + (", ".join(rest) if rest else "no arguments")
