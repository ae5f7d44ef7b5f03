"""The module under test: built as a row builds it, called as a host calls it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...registry import plugins, registry
from ...registry.binding import Binding, Mismatch
from ...registry.forms import Calls, adapt, is_users
from .blame import Sources
from .remedies import remedy_for
from .verdict import Fault, Line

__all__ = ["SIZES", "Subject", "subject_of"]

# Working sizes: the first that the module runs on is used by every check but those of sizes. Windows and patches want powers.
SIZES = ((12, 10), (16, 16), (32, 32), (20, 20), (14, 14), (8, 8), (64, 64), (7, 7))


@dataclass
class Subject:
    """A class, and how a row builds and calls it.

    Args:
        name: Its name in a row.
        cls: The class.
        binding: How it is built from a row.
        options: Options of the row, by name.
        channels: Channels of the checks that need no other number.
        inputs: Number of maps that it takes.
        kind: As in :func:`~yolo_attn.registry.registry.register`.
        device: Where the checks run.
    """

    name: str
    cls: type
    binding: Binding
    options: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 64
    inputs: int = 1
    kind: str = ""
    device: str = "cpu"

    @cached_property
    def sources(self) -> Sources:
        """The files of the class."""
        return Sources(self.cls)

    @property
    def is_users(self) -> bool:
        """Whether the class is a user's and not the kit's."""
        return is_users(self.cls)

    @property
    def form(self) -> Any:
        """How it is called, by its entry; None for one map in, one map out."""
        return self.binding.form

    def row(self, channels: int, options: Mapping[str, Any] | None = None) -> str:
        """Return the row of a YAML that builds it.

        Args:
            channels: Channels that arrive; written where the class is a block.
            options: Options by name; None for those of the subject.
        """
        given = dict(self.options if options is None else options)
        args: list[str] = [str(channels)] if self.binding.is_block else []
        args += [f"{{{', '.join(f'{k}: {_yaml(v)}' for k, v in given.items())}}}"] if given else []
        source = "-1" if self.inputs == 1 else str([-1, *range(6, 6 - 2 * (self.inputs - 1), -2)])
        return f"[{source}, 1, {self.name}, [{', '.join(args)}]]"

    def bound(self, channels: int) -> Any:
        """Return the constructor's call at a number of channels.

        Raises:
            Mismatch: The options do not fit the constructor.
        """
        row: list[Any] = [channels] if self.binding.is_block else []
        row += [dict(self.options)] if self.options else []
        sides: Any = [channels] * self.inputs if self.inputs > 1 else channels
        if self.inputs > 1 and self.is_users:  # as a row does: equal maps given one by one
            one = Calls.of(self.cls).one_by_one(self.inputs, self.form)
            sides = channels if one else sides
        return self.binding.bind(row, sides, 1, lambda c: c)

    def build(self, channels: int = 0, *, seed: int = 0, stir: bool = False, **options: Any) -> Any:
        """Return a fresh module in training mode.

        Args:
            channels: Channels that arrive; 0 for the smallest that works.
            seed: Seed of its weights.
            stir: Draw every parameter at random, so that no start hides what the module computes.
            options: Further options.

        Raises:
            Exception: Whatever the constructor raises.
        """
        import torch

        call = self.bound(channels or self.small)
        torch.manual_seed(seed)
        module = self.cls(*call.args, **{**call.kwargs, **options})
        module = adapt(module, self.form, self.inputs if self.inputs > 1 else 0).to(self.device)
        if stir:
            stirred(module)
        return module

    def out_channels(self, channels: int) -> int:
        """Return the channels that a row promises to the next one."""
        return int(self.bound(channels).c2)

    def maps(
        self, size: tuple[int, int] = (), batch: int = 2, channels: int = 0, seed: int = 0, dtype: Any = None  # type: ignore[assignment]
    ) -> Any:
        """Return random input: one map, or a list of them where the module takes several.

        Args:
            size: Height and width; empty for the working size.
            batch: Images.
            channels: 0 for the smallest that works.
            seed: Seed of the values.
            dtype: Type of the values; None for fp32.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        shape = (batch, channels or self.small, *(size or self.size))
        found = [torch.randn(shape, generator=generator, dtype=dtype).to(self.device) for _ in range(self.inputs)]
        return found if self.inputs > 1 else found[0]

    def prepare(self) -> None:
        """Find the smallest width and the working size, once.

        Raises:
            Fault: The module runs on no size.
        """
        _ = self.small, self.size

    @cached_property
    def small(self) -> int:
        """The fewer of 16 and 32 channels that the module builds and runs with; `channels` if none."""
        import torch

        for channels in (16, 32):
            if channels >= self.channels:
                break
            with contextlib.suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
                module = self.build(channels).eval()
                if any(p.numel() == 0 for p in module.parameters()):
                    continue
                if _first(module(self.maps((16, 16), 2, channels))).shape[1] == self.out_channels(channels):
                    return channels
        return self.channels

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the checks that need no other.

        Raises:
            Fault: The module runs on none.
        """
        import torch

        first: Exception | None = None
        for size in SIZES:
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    self.build(self.small).eval()(self.maps(size, 2, self.small))
            except MemoryError:
                raise
            except Exception as exc:  # a module can raise anything
                first = first or exc
                continue
            return size
        assert first is not None
        raise self.fault(first, f"runs on no map, such as (2, {self.small}, 12, 10)", self._other_form()) from first

    def _other_form(self) -> str:
        """How to register a module that takes sequences, channels-last maps or several inputs; empty if it takes none."""
        from ...errors import RowError
        from ...hook.module_trial import Row, try_out

        channels: Any = [self.small] * self.inputs if self.inputs > 1 else self.small
        try:
            with quiet():
                try_out(self.build(self.small), Row("row", self.name, channels, self.out_channels(self.small), {}, self.form))
        except RowError as exc:
            told = re.search(r"(It takes \([^)]*\)\. )?(Register it so|Write under 'register:').*", str(exc))
            return told.group(0) if told else ""
        return ""

    def fault(self, exc: BaseException, before: str = "", remedy: str = "") -> Fault:
        """Return the failure for an error that the module raised, with its line and remedy."""
        from ...errors import first_line

        said = first_line(exc)[:300].rstrip(".")
        said = f"{type(exc).__name__}: {said}" if said else type(exc).__name__
        where = self.sources.of_error(exc)
        known = remedy if "egister" in remedy else remedy_for(f"{type(exc).__name__}: {exc}", remedy)
        return Fault(f"{before}: {said}" if before else said, known, where)

    def line_of(self, part: Any, name: str, methods: tuple[str, ...] = ()) -> Line | None:
        """Return where the class of a part of the module sets an attribute."""
        return self.sources.attribute(type(part), name, methods) or self.sources.attribute(self.cls, name, methods)


def subject_of(name: str, options: Mapping[str, Any] | None = None, *, channels: int = 64, device: str = "cpu") -> Subject:
    """Return the subject that a registered name, an alias or ``FILE.py:Class`` names.

    Args:
        name: The name.
        options: Options of the row, by name.
        channels: Channels of the checks.
        device: Where they run, such as ``cpu`` or ``cuda:0``.

    Raises:
        UnknownModuleError: No module has that name.
        PluginError: The file cannot be loaded or has no such class.
        UsageError: PyTorch cannot use the device.
    """
    import torch

    from ...errors import UsageError, first_line

    try:
        torch.empty(0, device=device)
    except Exception as exc:  # each kind of device has errors of its own
        raise UsageError(f"--device {device}: PyTorch cannot use it: {first_line(exc)[:200]}") from exc
    plain = plugins.resolve(name)
    entry = registry.get_entry(plain)
    calls, form, inputs = Calls.of(entry.cls), entry.binding.form, 1
    if entry.kind == "fusion":
        inputs = 2
    elif is_users(entry.cls) and len(calls.needed) > 1 and (form is None or form.inputs is None):
        inputs = len(calls.needed)
    return Subject(plain, entry.cls, entry.binding, dict(options or {}), channels, inputs, entry.kind, device)


def stirred(module: Any) -> Any:
    """Draw every parameter at random, with a fixed seed; return the module."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.3 + 0.1)
    return module


def each(x: Any) -> list[Any]:
    """The maps of an input."""
    return list(x) if isinstance(x, (list, tuple)) else [x]


def mapped(x: Any, change: Any) -> Any:
    """Return an input with each of its maps changed."""
    return [change(m) for m in x] if isinstance(x, (list, tuple)) else change(x)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings that have nothing to do with the check, and give back the random number generator."""
    import warnings

    import torch

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def _first(y: Any) -> Any:
    return y[0] if isinstance(y, (list, tuple)) else y


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# The errors that mean that the row does not fit the constructor.
MISFIT = (Mismatch, TypeError, ValueError, AssertionError, ZeroDivisionError)
