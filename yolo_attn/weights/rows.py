"""The rows of a model for matching weights: from its layers, or from the names of its tensors if there is no model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..registry import registry
from .attention import attention_in
from .checkpoint import Checkpoint, tensors_of

__all__ = ["Row", "rows_of"]

# Detection heads share weights: boxes and classes of a segmentation head fit a detector.
_HEADS = frozenset(
    [
        "Detect",
        "Segment",
        "Pose",
        "OBB",
        "v10Detect",
        "WorldDetect",
        "YOLOEDetect",
        "YOLOESegment",
        "Segment26",
        "Pose26",
        "OBB26",
    ]
)


@dataclass(eq=False)
class Row:
    """One row and its tensors.

    Args:
        index: Number of the row.
        prefix: Prefix of its tensors' names in the state dict.
        family: Name of its class without attention; empty if only names are known.
        module: Name of its class.
        shapes: Shapes of its tensors, by name without the prefix.
        attention: Names of its attention modules, by path; the path is empty if the whole row is attention.
        inputs: Numbers of the rows that it reads; None if unknown.
    """

    index: int
    prefix: str
    family: str
    module: str
    shapes: dict[str, tuple[int, ...]]
    attention: dict[str, str]
    inputs: list[int] | None = None

    def key(self, name: str) -> str:
        """Return the name of a tensor in the state dict."""
        return self.prefix + name

    def name(self, key: str) -> str:
        """Undo :meth:`key`."""
        return key[len(self.prefix) :]

    @property
    def attention_row(self) -> bool:
        """Whether the whole row is attention."""
        return "" in self.attention

    def attention_of(self, name: str) -> str | None:
        """Return the path of the attention module that a tensor belongs to, or None."""
        return next((p for p in self.attention if not p or name.startswith(p + ".")), None)

    def base(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors that do not belong to attention."""
        return {k: v for k, v in self.shapes.items() if self.attention_of(k) is None}


def rows_of(ckpt: Checkpoint) -> list[Row]:
    """Return the rows of a checkpoint, in order."""
    if ckpt.model is None:
        return _rows_of_names(ckpt.tensors)
    rows: list[Row] = []
    for i, layer in enumerate(ckpt.model._modules["model"]._modules.values()):
        cls = _unwrapped(layer)
        f = getattr(layer, "f", -1)
        inputs = [i + x if x < 0 else x for x in (f if isinstance(f, (list, tuple)) else [f])]
        rows.append(
            Row(
                i,
                f"model.{i}.",
                _family(cls),
                cls.__name__,
                {k: tuple(v.shape) for k, v in tensors_of(layer)},
                attention_in(layer),
                inputs,
            )
        )
    return rows


def _unwrapped(layer: Any) -> type:
    """The class of a layer, of the first copy if the host repeats it in a Sequential."""
    while type(layer).__name__ == "Sequential" and (getattr(layer, "_modules", None) or {}).get("0") is not None:
        layer = layer._modules["0"]
    return type(layer)


def _rows_of_names(tensors: Mapping[str, Any]) -> list[Row]:
    rows: dict[int, Row] = {}
    for key, value in tensors.items():
        match = re.fullmatch(r"model\.(\d+)\.(.+)", key)
        if match:
            i = int(match.group(1))
            rows.setdefault(i, Row(i, f"model.{i}.", "", "", {}, {})).shapes[match.group(2)] = tuple(value.shape)
    return [rows[i] for i in sorted(rows)]


def _family(cls: type) -> str:
    """The name of a class without its attention: C3SE is a C3, SEConv a Conv, Segment a Detect."""
    names = [c.__name__ for c in cls.__mro__]
    entry = registry.find(cls.__name__)
    if entry is not None and entry.kind == "block":
        names = [c.__name__ for c in entry.cls.__mro__]
        for name in names:
            if name.endswith("Attention") and len(name) > len("Attention"):
                return name[: -len("Attention")]
        if "Conv" in names:
            return "Conv"
    return "Detect" if names[0] in _HEADS else names[0]
