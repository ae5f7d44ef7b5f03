"""The list of checks, and one run of them in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Callable

from . import constructor, cost, gradients, graphs, life, precision, repeat, shapes
from .order import BASIS, FIRST, skipped
from .remedies import remedy_for
from .subject import Subject
from .verdict import FAILURE, PASS, SKIPPED, Fault, Finding, Skip

__all__ = ["CHECKS", "Check", "one", "several"]


@dataclass(frozen=True)
class Check:
    """A check: its name, and the function that makes it.

    The function returns what was seen, or a :class:`~.verdict.Finding`; it raises :class:`~.verdict.Fault`,
    :class:`~.verdict.Doubt` or :class:`~.verdict.Skip`.
    """

    name: str
    make: Callable[[Subject], Any]

    @property
    def what(self) -> str:
        """What it asks, in one line."""
        return (self.make.__doc__ or "").strip().splitlines()[0]


CHECKS = {
    c.name: c
    for c in (
        Check("constructor", constructor.constructor),
        Check("runs", shapes.runs),
        Check("widths", shapes.widths),
        Check("odd-sizes", shapes.odd_sizes),
        Check("one-pixel", shapes.one_pixel),
        Check("one-image", shapes.one_image),
        Check("input-kept", shapes.input_kept),
        Check("repeatable", repeat.repeatable),
        Check("state", repeat.state),
        Check("memory-format", shapes.memory_format),
        Check("built-in-forward", repeat.built_in_forward),
        Check("device", precision.other_device),
        Check("fp64", precision.double),
        Check("autocast", precision.autocast),
        Check("half-weights", precision.half_weights),
        Check("largest", precision.largest),
        Check("gradient", gradients.finite_differences),
        Check("constant-map", gradients.constant_map),
        Check("parameters", gradients.parameters_learn),
        Check("copy", life.copied),
        Check("save", life.saved),
        Check("ema", life.averaged),
        Check("fuse", life.fused),
        Check("names", life.names),
        Check("optimizer", life.optimizers),
        Check("static-onnx", graphs.static_onnx),
        Check("dynamic-onnx", graphs.dynamic_onnx),
        Check("portable", graphs.portable),
        Check("opencv", graphs.opencv),
        Check("compile", graphs.compiled),
        Check("cost", cost.cost),
        Check("shrinkage", cost.shrinkage),
    )
}


def one(name: str, s: Subject) -> Finding:
    """Make one check.

    Args:
        name: One of :data:`CHECKS`.
        s: The module under test.
    """
    try:
        if name != "constructor":
            s.prepare()
        found = CHECKS[name].make(s)
    except Fault as exc:
        return Finding(name, exc.status, exc.said, exc.line or s.sources.of_error(exc), exc.remedy)
    except Skip as exc:
        return Finding(name, SKIPPED, str(exc))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a module can raise anything, SystemExit as well
        if isinstance(exc, GeneratorExit) or _ours(exc):
            raise
        fault = s.fault(exc)
        remedy = remedy_for(fault.said, "raise an error with a message; a module never ends the process" if isinstance(exc, SystemExit) else "")
        return Finding(name, FAILURE, fault.said, fault.line, fault.remedy or remedy)
    return replace(found, check=name) if isinstance(found, Finding) else Finding(name, PASS, str(found))


def _ours(exc: BaseException) -> bool:
    """Whether a check itself raised it, which no module is to be blamed for."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    return tb is not None and os.path.dirname(tb.tb_frame.f_code.co_filename) == os.path.dirname(__file__)


def several(s: Subject, names: Iterable[str] = CHECKS) -> Iterator[Finding]:
    """Make checks in order; where the module cannot be built or run at all, the others are skipped.

    Args:
        s: The module under test.
        names: Names of :data:`CHECKS`.
    """
    failed: list[str] = []
    for name in names:
        yield skipped(name, failed) or _noted(one(name, s), failed)


def _noted(found: Finding, failed: list[str]) -> Finding:
    if found.status == FAILURE and found.check in (*FIRST, *BASIS):
        failed.append(found.check)
    return found
