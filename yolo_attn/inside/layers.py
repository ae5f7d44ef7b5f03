"""Find the gates of a detector: the layers that have one, what each says about it, and the row that it stands in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import YoloAttnError
from ..modules._gates import Gated, gated_by, names_of
from ..weights.attention import name_of

__all__ = ["DECLARED", "RATIO", "Place", "find_gates", "network_of"]

DECLARED, RATIO = "declared", "recognised by its ratio"  # how it is known what a gate is
UNKNOWN = "its class does not say what its gate is, and its output is no product of its input and a gate"


@dataclass(frozen=True)
class Place:
    """A gate in a network.

    Args:
        key: Its name: the layer's, and ``/`` and the gate's own where the layer has several.
        layer: The layer's name, as in the state dict: ``model.4``, ``model.6.m.0.attn``.
        module: The layer.
        kind: Name of the layer's class as it is registered.
        gated: What the gate is; None for a layer whose class does not say, until a forward pass has shown it.
        row: Index of the row that the layer stands in; None where the network has no rows.
        alone: Whether the layer returns its input times this gate and nothing else.
        row_kind: Name of the row's class as it is registered, the block that holds the layer or the layer itself.
    """

    key: str
    layer: str
    module: Any
    kind: str
    gated: Gated | None
    row: int | None
    alone: bool
    row_kind: str

    @property
    def location(self) -> str:
        """Where it stands, for messages: ``row 4 (SEAttention)``, ``row 6 (C3Attention), m.0.attn (SE)``."""
        inner = re.sub(r"^(model\.)?\d+\.?", "", self.layer) if self.row is not None else self.layer
        at = "" if self.row is None else f"row {self.row}"
        text = ", ".join(filter(None, [at, inner])) or "the module"
        part = self.key.rpartition("/")[2] if "/" in self.key else ""
        return f"{text} ({self.kind}{', ' + part if part else ''})"


def network_of(model: Any) -> Any:
    """Return the network behind what the hosts and the kit wrap around one.

    Args:
        model: An ``ultralytics.YOLO``, an opened detector, a network, or any ``nn.Module``.

    Raises:
        YoloAttnError: It is none of these, or a script whose layers hooks cannot reach.
    """
    import torch
    from torch import nn

    seen: list[Any] = []
    while True:
        seen.append(model)
        if isinstance(model, torch.jit.ScriptModule):
            raise YoloAttnError("gates cannot be recorded from TorchScript; open the checkpoint that it was made from")
        inner = None
        if hasattr(model, "_orig_mod"):  # what torch.compile returns
            inner = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        elif not isinstance(getattr(model, "model", None), (nn.Sequential, type(None), str)):
            inner = model.model
        if inner is None or any(inner is m for m in seen):
            break
        model = inner
    if not isinstance(model, nn.Module):
        raise YoloAttnError(f"gates can be recorded from a network, an ultralytics YOLO or an opened detector, not from {type(model).__name__}")
    return model


def find_gates(network: Any) -> tuple[list[Place], dict[str, str]]:
    """Return the gates of a network, in the order of its layers, and the attention layers without one, with the reason.

    Layers of the user's classes that do not say what their gate is are among the gates, with ``gated`` None.
    """
    places: list[Place] = []
    without: dict[str, str] = {}
    for path, module, kind in _attention(network):
        said = gated_by(module)
        if isinstance(said, str):
            without[path] = said
        else:
            row, row_kind = _row(network, path)
            for gated, name in zip(said or (None,), names_of(said) if said and len(said) > 1 else ("",)):
                key = f"{path}/{name}" if name else path
                alone = said is None or (len(said) == 1 and not said[0].at)
                places.append(Place(key, path, module, kind, gated, row, alone, row_kind))
    return places, without


def _attention(network: Any) -> Iterator[tuple[str, Any, str]]:
    """Each layer that has a gate, may have one, or is attention without one: its name, itself, its class's name."""
    seen: set[int] = set()

    def walk(module: Any, path: str) -> Iterator[tuple[str, Any, str]]:
        if id(module) in seen:  # a layer that is used twice
            return
        seen.add(id(module))
        said, name = gated_by(module), name_of(type(module))
        if name is not None or isinstance(said, tuple):
            yield path, module, name or _registered(type(module))
        if said is None and name is not None:
            return  # what a user's gate consists of
        for n, child in module.named_children():
            yield from walk(child, f"{path}.{n}" if path else n)

    yield from walk(network, "")


def _registered(cls: type) -> str:
    from ..registry import registry

    entry = registry.entry_of(cls)
    return cls.__name__ if entry is None else entry.name


def _row(network: Any, path: str) -> tuple[int | None, str]:
    """Index of the row that a layer stands in, and the name of the row's class."""
    layers = getattr(network, "model", None)
    match = re.match(r"model\.(\d+)(\.|$)", path)
    if match is None or layers is None:
        return None, ""
    top = layers[int(match[1])]
    return int(getattr(top, "i", match[1])), _registered(type(top))
