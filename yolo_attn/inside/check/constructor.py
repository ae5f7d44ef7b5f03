"""The constructor: whether a row builds the module, and if not, the row that would."""

from __future__ import annotations

from ...hook.fitting import fitting_row, signature_of
from ...registry.binding import Mismatch
from .subject import Subject
from .verdict import Fault

__all__ = ["constructor"]


def constructor(s: Subject) -> str:
    """A row builds it: channels from the graph, options by name."""
    row = s.row(s.channels)
    try:
        s.build(s.channels)
    except Exception as exc:  # a constructor can raise anything
        said = str(exc).splitlines()[0][:300] if str(exc) else type(exc).__name__
        width = [s.channels] if s.binding.is_block else []
        args = [*width, *([dict(s.options)] if s.options else [])]
        sides = [s.channels] * s.inputs if s.inputs > 1 else s.channels
        head = [-1 if s.inputs == 1 else [-1, *range(6, 6 - 2 * (s.inputs - 1), -2)], 1, s.name]
        fits = fitting_row(s.cls, s.binding, args, sides, 1, lambda c: c, head)
        line = (None if isinstance(exc, Mismatch) else s.sources.of_error(exc)) or s.sources.method(s.cls, "__init__")
        kind = "" if isinstance(exc, Mismatch) else f"{type(exc).__name__}: "
        raise Fault(
            f"the row {row} does not build it, {signature_of(s.cls, s.binding)}: {kind}{said}",
            f"this row does: {fits}" if fits else "name the parameter that receives the channels 'channels', and give the others defaults",
            line,
        ) from exc
    return row
