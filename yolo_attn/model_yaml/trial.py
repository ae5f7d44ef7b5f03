"""Check a module's options before a YAML is written, by building the module with its channels."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Callable

from ..errors import UsageError, YoloAttnError, first_line
from ..hook.resolve import Named
from ..registry.binding import Mismatch
from ..words import option

__all__ = ["check_options"]

# A width that every module accepts, if the rows do not determine the channels.
USUAL = 256


def check_options(
    what: Named,
    args: list[Any],
    options: Mapping[str, Any],
    width: int | None,
    widen: Callable[[Any], Any],
    row: str,
) -> None:
    """Build a module as its row will build it, without memory for weights.

    Args:
        what: The attention, or the block that contains it.
        args: The row's arguments.
        options: The options that the user gave; the message names the wrong one.
        width: Input channels, or None if unknown.
        widen: The model's width rule, ``f(channels) -> channels``.
        row: File and row, for messages.

    Raises:
        UsageError: The module cannot be built; the message names the option and the row.
    """
    problem = _problem(what, args, width or USUAL, widen)
    if problem is None:
        return
    wrong = [k for k in options if _problem(what, _without(args, k), width or USUAL, widen) is None]
    named = wrong[:1] or list(options)  # without a required option nothing can be built: name all
    if not named:
        raise UsageError(
            f"{row}: {what.name} cannot be built there: {problem}. "
            f"Give options by name: {option('args', {'NAME': 'VALUE'})}."
        )
    shown = option("args", {k: options[k] for k in named})
    raise UsageError(
        f"{row}: {what.name} cannot be built with {shown}, where {width or USUAL} channels arrive: {problem}. "
        f"Give another {' or '.join(named)}{', or leave it out' if wrong else ''}."
    )


def _problem(what: Named, args: list[Any], channels: int, widen: Callable[[Any], Any]) -> str | None:
    if what.cls is None or what.binding is None:  # a plug-in that is not loaded
        return None
    try:
        call = what.binding.bind(list(args), channels, 1, widen)
        with _without_memory():
            what.cls(*call.args, **call.kwargs)
    except (Mismatch, YoloAttnError) as exc:
        return first_line(exc).rstrip(".")
    except NotImplementedError:  # the meta device lacks an operation, which says nothing about the option
        return None
    except Exception as exc:  # a constructor can raise anything
        said = first_line(exc).rstrip(".")
        return f"{type(exc).__name__}: {said}" if said else type(exc).__name__
    return None


def _without(args: list[Any], key: str) -> list[Any]:
    *rest, named = args
    return [*rest, {k: v for k, v in named.items() if k != key}] if isinstance(named, dict) else args


def _without_memory() -> Any:
    """torch's meta device; before torch 2.0, modules are built as usual."""
    import torch

    return torch.device("meta") if hasattr(torch.device, "__enter__") else contextlib.nullcontext()
