"""The report of a transfer of weights, layer by layer: as a line, a table, and plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Layer", "Report"]


@dataclass
class Layer:
    """One layer of the target and what its tensors received.

    Args:
        row: Number of its row.
        module: Name of its class.
        source: Number of the source's row, or None.
        transferred: Number of tensors that received weights.
        new: Names of tensors that keep their initial values.
        mismatch: Name, source shape and target shape of tensors that do not fit.
        attention: Whether the whole layer is attention.
    """

    row: int
    module: str
    source: int | None
    transferred: int
    new: list[str]
    mismatch: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    attention: bool


@dataclass
class Report:
    """The result of a transfer.

    Args:
        source: File of the weights.
        layers: The target's layers that have tensors.
        mapping: Name of each transferred tensor in the target, to its name in the source.
        unused: Names of source tensors that are not used.
        attention: Names of target tensors that belong to attention.
        rewired: Numbers of rows whose inputs differ from those of the source's row.
        misfits: As `mapping`, for tensors of different shapes.
        classes: Number of classes of source and target, None if unknown.
        until_trained: How the detector relates to the source until it is trained, by :mod:`.untrained`; empty if not
            determined, or without attention.
    """

    source: str
    layers: list[Layer]
    mapping: dict[str, str]
    unused: list[str]
    attention: set[str]
    rewired: list[int] = field(default_factory=list)
    misfits: dict[str, str] = field(default_factory=dict)
    classes: tuple[int | None, int | None] = (None, None)
    until_trained: str = ""

    @property
    def new(self) -> list[str]:
        """Target tensors without a counterpart in the source."""
        return [k for layer in self.layers for k in layer.new]

    @property
    def new_attention(self) -> list[str]:
        """Those of :attr:`new` that belong to attention."""
        return [k for k in self.new if k in self.attention]

    @property
    def mismatch(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Tensors whose shapes differ: name, source shape, target shape."""
        return [m for layer in self.layers for m in layer.mismatch]

    @property
    def base(self) -> int:
        """Number of the target's tensors, without attention."""
        return sum(
            len([k for k in layer.new if k not in self.attention])
            + len([m for m in layer.mismatch if m[0] not in self.attention])
            for layer in self.layers
        ) + len([k for k in self.mapping if k not in self.attention])

    @property
    def matched(self) -> int:
        """Number of those that received weights."""
        return len([k for k in self.mapping if k not in self.attention])

    @property
    def fraction(self) -> float:
        """Fraction of the target's tensors, without attention, that received weights, 0 to 1."""
        return self.matched / self.base if self.base else 1.0

    def summary(self) -> str:
        """Return the report as one line."""
        words = [f"{self.matched} of {self.base} tensors of the detector received weights of {self.source}"]
        attended = len(self.mapping) - self.matched
        fresh = sum(m[0] in self.attention for m in self.mismatch) + len(self.new_attention)
        words += [f"{attended} of attention likewise"] if attended else []
        words += [f"{fresh} of attention are new"] if fresh else []
        other = len(self.mismatch) - sum(m[0] in self.attention for m in self.mismatch)
        words += [f"{other} have another shape{self._why()}"] if other else []
        words += [f"{len(self.unused)} of the source are not used"] if self.unused else []
        if any(k.endswith(".anchors") for k in self.unused):
            words += ["its anchor-based head has no place in this anchor-free one and begins anew"]
        return ", ".join(words)

    def _why(self) -> str:
        a, b = self.classes
        return f" ({a} classes there, {b} here)" if a and b and a != b else ""

    def table(self) -> str:
        """Return a table: row, source row, module, transferred tensors, and what was not transferred."""
        rows = [("row", "from", "module", "weights", "")]
        for x in self.layers:
            count = x.transferred + len(x.new) + len(x.mismatch)
            notes = [f"{len(x.new)} new{' (attention)' if set(x.new) <= self.attention else ''}"] if x.new else []
            notes += [f"{_shape(b)} here, {_shape(a)} there: {k.split('.', 2)[-1]}" for k, a, b in x.mismatch[:2]]
            notes += [f"{len(x.mismatch) - 2} more shapes differ"] if len(x.mismatch) > 2 else []
            notes += ["other inputs than in the source"] if x.row in self.rewired else []
            source = "-" if x.source is None else str(x.source)
            rows.append((str(x.row), source, x.module, f"{x.transferred}/{count}", "; ".join(notes)))
        widths = [max(len(r[c]) for r in rows) for c in range(4)]
        lines = [
            f"{r[0]:>{widths[0]}}  {r[1]:>{widths[1]}}  {r[2]:<{widths[2]}}  {r[3]:>{widths[3]}}  {r[4]}".rstrip()
            for r in rows
        ]
        if self.unused:
            by_row: dict[str, int] = {}
            for key in self.unused:
                row = ".".join(key.split(".")[:2])
                by_row[row] = by_row.get(row, 0) + 1
            lines.append("not used: " + ", ".join(f"{k} ({n})" for k, n in by_row.items()))
        return "\n".join([*lines, self.summary()])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "source": self.source,
            "transferred": len(self.mapping),
            "detector_tensors": self.base,
            "detector_tensors_transferred": self.matched,
            "fraction": round(self.fraction, 4),
            "classes": {"source": self.classes[0], "target": self.classes[1]},
            "layers": [
                {
                    "row": x.row,
                    "module": x.module,
                    "source_row": x.source,
                    "attention": x.attention,
                    "transferred": x.transferred,
                    "new": x.new,
                    "mismatch": [{"name": k, "source": list(a), "target": list(b)} for k, a, b in x.mismatch],
                }
                for x in self.layers
            ],
            "new_attention": self.new_attention,
            "not_used": self.unused,
            "rewired": self.rewired,
            "until_trained": self.until_trained,
            "mapping": self.mapping,
        }

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.to_dict(), indent=1)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
