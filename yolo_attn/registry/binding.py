"""Turn the numbers of a YAML row into the arguments of a module's constructor.

The constructor's signature tells which arguments the kit fills in: a first parameter such as ``channels`` receives
the actual input channels; a second one such as ``c2`` makes the module a block, whose width in the row is scaled by
the host's rule; a third one, ``n``, receives the repeats, as in C3. A module without a channel parameter gets none.

The numbers of a row (:meth:`Binding.bind`) are widths first, which the graph knows and the kit only checks; then
options, in the constructor's order or in that of ``positional``. A number that could mean two things is refused, and
the message shows the row that gives it by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from ..errors import RegistryError, shown
from .constructor import Constructor
from .forms import Form, OutChannels, is_users, out_channels
from .parameters import LARGEST_OPTION, LEAST_WIDTH, PLAIN, implausible, is_number, read

__all__ = ["Binding", "Call", "Mismatch"]


class Mismatch(Exception):
    """The arguments of a row do not fit the module or the graph; the caller adds file and row."""


@dataclass(frozen=True)
class Call:
    """A constructor call, and what the parser goes on with.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        c2: Output channels.
        n: Repeats.
        notes: Lines to announce to the user.
        taken: The options that the row gave as bare numbers, by name.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    c2: int
    n: int
    notes: tuple[str, ...] = ()
    taken: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding(Constructor):
    """How a class is built from a row: what the graph provides, and what the numbers of the row mean.

    Attributes:
        out_channels: As for :func:`~yolo_attn.registry.registry.register`.
        positional: As for :func:`~yolo_attn.registry.registry.register`, each string split into words.
        guessed: Whether the first parameter was taken for the channels although its name does not say so.
        sets: Options, with their values, that a spelling such as ``C3_GC`` stands for.
        form: How the module is called, if not with one map to return one map.
        verbatim: Whether the row's numbers after `takes` are the host's own arguments, without nominal widths.
    """

    out_channels: Callable[..., int] | None = None
    positional: tuple[tuple[str, ...], ...] = ()
    guessed: bool = False
    sets: tuple[tuple[str, Any], ...] = ()
    form: Form | None = None
    verbatim: bool = False

    @classmethod
    def of(
        cls,
        target: type,
        takes: str | None = None,
        stated: Any = None,
        positional: Iterable[str] = (),
        form: Form | None = None,
    ) -> Binding:
        """Return the binding of a class, from the signature of its constructor or from `takes`.

        Args:
            target: The class.
            takes: As for :func:`~yolo_attn.registry.registry.register`.
            stated: `out_channels` of the same: a function, a number, or a fraction such as ``c1/2``.
            positional: As for the same.
            form: As for the class.

        Raises:
            RegistryError: The constructor cannot be read, or one of these does not fit it.
        """
        try:
            signature = inspect.signature(target)
        except (TypeError, ValueError) as exc:
            raise RegistryError(f"cannot read the constructor of {shown(target)}: {exc}") from exc
        spellings = tuple(sorted((tuple(text.split()) for text in positional), key=len))
        for word in (w for words in spellings for w in words):
            if word != "-" and _option(word) not in signature.parameters:
                raise RegistryError(f"positional={shown(word)}: {target.__name__} has no such option")
        verbatim = bool(getattr(target, "verbatim", False)) and not is_users(target)
        if takes is not None:
            words = tuple(takes.replace(",", " ").split())
            if words not in ((), ("channels",), ("c1", "c2"), ("c1", "c2", "n")):
                raise RegistryError(f"takes={shown(takes)} is none of '', 'channels', 'c1 c2', 'c1 c2 n'")
            return cls(words, signature, (), out_channels(stated), spellings, form=form, verbatim=verbatim)
        words, by_name, guessed = read(signature)
        return cls(words, signature, by_name, out_channels(stated), spellings, guessed, form=form, verbatim=verbatim)

    def preset(self, **options: Any) -> Binding:
        """Return a copy of the binding with other defaults for the named options."""
        parameters = [
            p.replace(default=options[p.name]) if p.name in options else p for p in self.signature.parameters.values()
        ]
        return replace(self, signature=self.signature.replace(parameters=parameters), sets=tuple(options.items()))

    def with_sets(self, row_args: list[Any]) -> list[Any]:
        """Return a row's arguments with the options that the spelling implies, unless the row gives them by name."""
        if not self.sets:
            return row_args
        *numbers, last = row_args if row_args and isinstance(row_args[-1], dict) else [*row_args, {}]
        return [*numbers, {**dict(self.sets), **last}]

    def bind(self, row_args: list[Any], channels: int | list[int], n: int, widen: Callable[[Any], Any]) -> Call:
        """Return the constructor call that a row means.

        Args:
            row_args: The row's fourth column; a trailing mapping holds keyword arguments.
            channels: Input channels; a list of them where `from` is a list.
            n: Repeats, after depth scaling.
            widen: The host's width rule, ``f(channels) -> channels``.

        Raises:
            Mismatch: The arguments fit neither the constructor nor the graph; the message says what would.
        """
        args: list[Any] = [
            int(a) if isinstance(a, float) and a.is_integer() and i < 2 else a
            for i, a in enumerate(self.with_sets(row_args))
        ]
        kwargs: dict[str, Any] = dict(args.pop()) if args and isinstance(args[-1], dict) else {}
        if any(not isinstance(k, str) for k in kwargs):
            raise Mismatch(f"options by name need text keys, got {shown(kwargs)}")
        notes: list[str] = []
        written: Any = channels
        c2 = 0
        if self.is_block:
            c2, written = self._stated_width(args, channels, widen)
            if n > 1 and "n" not in self.takes and channels != c2:
                raise Mismatch(f"repeated {n} times, but it turns {channels} channels into {c2}; use one row for each")
        elif self.verbatim:
            if "repeats" in self.signature.parameters:
                kwargs.setdefault("repeats", n)
                n = 1
        elif isinstance(channels, list):
            self._drop_widths(args, channels, widen, notes)
        else:
            written = self._drop_width(args, channels, widen, notes)
        if self.guessed:
            notes.append(f"its parameter '{self.taken_names()[0]}' receives the {channels} input channels")
        lead, led = self.lead(channels, c2, n) if self.is_block else self.lead(channels)
        if "n" in self.takes:
            n = 1
        args, named, taken = self._spell(args, written, notes)
        twice = sorted((named.keys() | led.keys()) & kwargs.keys())
        if twice:
            raise Mismatch(f"{', '.join(twice)} is given twice, by position and by name")
        self._check(taken, kwargs, channels)
        call = Call([*lead, *args], {**led, **named, **kwargs}, c2, n, tuple(notes), taken)
        try:
            self.signature.bind(*call.args, **call.kwargs)
        except TypeError as exc:
            raise Mismatch(f"{exc}; {self.remedy(call.args, call.kwargs, channels)}{self.options()}") from exc
        return (
            call if self.is_block else Call(call.args, call.kwargs, self._output(call, channels), n, call.notes, taken)
        )

    # -- widths ---------------------------------------------------------------------------------------------------

    def _stated_width(self, args: list[Any], channels: Any, widen: Callable[[Any], Any]) -> tuple[int, int]:
        """Remove a block's output width from `args`; return it scaled and as written."""
        if self.out_channels is not None:  # stated with the name: a row may repeat it
            c2 = int(self.out_channels(channels))
            if args and is_number(args[0]) and c2 in (args[0], widen(args[0])):
                args.pop(0)
            return c2, c2
        if not args:
            if isinstance(channels, int) and "n" not in self.takes:  # takes c1 and c2, keeps the width
                return channels, channels
            raise Mismatch("the number of output channels is missing: it is the first argument of the row, e.g. [256]")
        stated = args.pop(0)
        if not is_number(stated) or stated < 1:
            raise Mismatch(f"the first argument is the number of output channels before scaling, got {shown(stated)}")
        # c1 and c2 both written, as many public YAMLs do
        if not self.verbatim and stated >= LEAST_WIDTH and _starts_with(args, stated):
            args.pop(0)
        return int(widen(stated)), stated

    def _drop_width(self, args: list[Any], channels: int, widen: Callable[[Any], Any], notes: list[str]) -> int:
        """Remove leading widths that agree with the graph; return the first one as written.

        Many public YAMLs write them; the kit does not need them.

        Raises:
            Mismatch: A number is neither the width nor an option.
        """
        if not args or not is_number(args[0]):
            return channels
        # SimAM [1024]: as e_lambda, 1024 would make the gate constant; a small number is never a width
        if not self.takes and self.binds(args) and args[0] < LEAST_WIDTH:
            return channels
        stated, scaled = args[0], widen(args[0])
        option = next(iter(self._words(args)), "")
        is_width = channels in (scaled, stated)
        if self.binds(args) and not self.binds(args[1:]) and not (self.takes and is_width):
            return channels  # an option without a default, which the numbers just fill
        if is_width:
            args.pop(0)
            if _starts_with(args, stated) and (self.binds(args[1:]) or not self.binds(args)):
                args.pop(0)  # the output width
            if not args and option and stated == channels <= LARGEST_OPTION:
                name = self.option_names()[0] if option == "-" else _option(option)
                notes.append(f"{stated} is the width and is ignored; an option goes by name: [{{{name}: {stated}}}]")
            return int(stated)
        if not option or not 0 < stated <= min(LARGEST_OPTION, channels // 2):
            others = self.option_names()[:1]
            example = f" Other arguments go by name, e.g. {self.example(others[0], channels)}" if others else ""
            raise Mismatch(
                f"the row says {stated} channels, {scaled} after width scaling, but {channels} arrive. "
                f"Leave the number out: the kit reads it off the graph.{example}"
            )
        if option != "-":
            name = _option(option)
            notes.append(
                f"{channels} channels arrive, so {stated} is taken for {name}; by name: [{{{name}: {stated}}}]"
            )
        return channels

    def _drop_widths(self, args: list[Any], channels: list[int], widen: Callable[[Any], Any], notes: list[str]) -> None:
        """Remove the widths that public YAMLs write in a row of several inputs."""
        known = {*channels, sum(channels)}
        while args and is_number(args[0]) and args[0] >= LEAST_WIDTH and (self.positional or not self.binds(args)):
            if not known & {args[0], widen(args[0])}:
                if not self.positional:
                    return
                notes.append(f"{args[0]} is ignored: {' and '.join(map(str, channels))} channels arrive")
            args.pop(0)

    # -- options --------------------------------------------------------------------------------------------------

    def _words(self, args: list[Any]) -> tuple[str, ...]:
        """The options that the numbers mean: the shortest entry of `positional` that is long enough, or all."""
        for words in self.positional:
            if len(words) >= len(args):
                return words
        return () if self.positional else tuple(self.option_names())

    def _spell(
        self, args: list[Any], written: Any, notes: list[str]
    ) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
        """Return the positional arguments, the keyword arguments, and all of them by name."""
        parameters = self.signature.parameters.values()
        if not args or any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return args, {}, {}
        words = self._words(args)
        if not self.positional:
            room = sum(p.kind in PLAIN and p.name not in self.taken_names() for p in parameters)
            surplus = dict(zip(words[room:], args[room:])) if len(args) <= len(words) else {}
            return args[: len(args) - len(surplus)], surplus, dict(zip(words, args))
        if not words:
            most = max(map(len, self.positional))
            raise Mismatch(f"{args} are more than the {most} numbers that it takes after the width; {self.options()}")
        named: dict[str, Any] = {}
        over = []
        for word, value in zip(words, args):
            of, name = word.rpartition("/")[0], _option(word)
            if word == "-" or (word.endswith("?") and not is_number(value)):
                over.append(value)
            else:
                named[name] = self._divided(name, 1 if of == "1" else written, value) if of else value
        if over:
            notes.append(f"ignored: {', '.join(map(repr, over))}; {self.options()}")
        return [], named, named

    def _divided(self, name: str, whole: Any, value: Any) -> int:
        if whole == 1 and is_number(value):  # `1/reduction` where the reduction itself stands
            return int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 and isinstance(whole, int):
            found = round(whole / value)
            if found >= 1 and abs(whole / value - found) < 1e-6:
                return found
        raise Mismatch(f"{shown(value)} gives {name} as a fraction of {whole} that is not a whole number; {self.options()}")

    def _check(self, taken: dict[str, Any], kwargs: dict[str, Any], channels: int | list[int]) -> None:
        """Refuse implausible values of options, which were probably meant as widths.

        Raises:
            Mismatch: The message shows how to give the option by name.
        """
        width = channels if isinstance(channels, int) else min(channels)
        for name, value in [*taken.items(), *kwargs.items()]:
            why = implausible(self.signature.parameters.get(name), name, value, width, by_name=name in kwargs)
            if why:
                raise Mismatch(f"{name}={shown(value)} {why}. Options go by name, e.g. {self.example(name, width)}")

    def _output(self, call: Call, channels: int | list[int]) -> int:
        if isinstance(self.out_channels, OutChannels):
            return self.out_channels(channels)
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


def _option(word: str) -> str:
    """The option that a word of `positional` stands for."""
    return word.rpartition("/")[2].rstrip("?")


def _starts_with(args: list[Any], number: int) -> bool:
    return bool(args) and is_number(args[0]) and args[0] == number
