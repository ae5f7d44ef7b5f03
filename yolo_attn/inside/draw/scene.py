"""What is drawn: the rows of a model with their channels and sizes, and what reads what."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, YoloAttnError
from ...hook.resolve import named
from ...model_yaml import find, load
from ...model_yaml.graph import Graph, is_block
from ...model_yaml.text import flow
from ...model_yaml.widths import Scale, widths

__all__ = ["ADDED", "CHANGED", "KEPT", "REMOVED", "Item", "Link", "Scene", "measure", "model_of", "scene_of"]

KEPT, ADDED, CHANGED, REMOVED = "", "added", "changed", "removed"


@dataclass(eq=False)
class Item:
    """A row.

    Args:
        number: Its number in the file; of a removed one, in the file that it was in.
        module: Its module as the file names it.
        repeats: Its second column.
        part: ``backbone``, ``head`` or, of the last row, ``output``.
        kind: ``attention``, ``block``, ``conv``, ``pool``, ``join``, ``resize`` or ``output``.
        stride: Pixels of the image for each of its positions; None where nothing tells.
        channels: Its output channels; None where nothing tells.
        size: Height and width of its output in pixels; None where nothing tells.
        state: Beside another model: ``added``, ``changed``, ``removed``, or empty.
        was: What a changed row was: its module, or its width or arguments where only these differ.
        args: Its arguments as the file has them, with the number of classes for its name.
    """

    number: int
    module: str
    repeats: int
    part: str
    kind: str
    stride: float | None = None
    channels: int | None = None
    size: tuple[int, int] | None = None
    state: str = KEPT
    was: str = ""
    args: str = ""

    @property
    def name(self) -> str:
        """The module as the box names it."""
        plain = self.module.rpartition(".")[2]
        return f"{plain} ×{self.repeats}" if self.repeats > 1 else plain

    @property
    def shape(self) -> str:
        """Channels and size as the box tells them."""
        size = f"{self.size[0]}×{self.size[1]}" if self.size else ""
        return " · ".join(filter(None, [str(self.channels) if self.channels else "", size]))


@dataclass(eq=False)
class Link:
    """An arrow: what is read, and by which row.

    Args:
        source: The row that is read; None for the image.
        target: The row that reads.
        state: As for :class:`Item`.
    """

    source: Item | None
    target: Item
    state: str = KEPT


@dataclass
class Scene:
    """Rows in order, and the arrows between them.

    Args:
        name: Of the file.
        imgsz: Height and width of the image in pixels.
        items: The rows.
        links: The arrows.
        base: The name of the file that it is compared with; empty for none.
        channels: Of the image.
    """

    name: str
    imgsz: tuple[int, int]
    items: list[Item] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    base: str = ""
    channels: int = 3


_WITHOUT = frozenset(["ResNetStem", "Classifier"])  # blocks of the kit that hold no attention
_JOINS = frozenset("Concat CBFuse WeightedConcat WeightedFusion AFF iAFF Sum ADD".split())
_RESIZES = frozenset("Upsample ConvTranspose ConvTranspose2d DWConvTranspose2d MaxPool2d AvgPool2d ZeroPad2d ADown AConv Expand Contract".split())
_POOLS = frozenset("SPP SPPF SPPELAN SPPCSPC SPPFCSPC Index CBLinear Identity".split())


def model_of(source: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Read what is to be drawn: a model YAML by name or path, a checkpoint or a bundle.

    Returns:
        A valid model dictionary in the dialect of ultralytics, and its name.

    Raises:
        ConfigError: The YAML is not valid, or there is none of that name.
        CheckpointError: The checkpoint cannot be read or holds no YAML.
    """
    name = str(source)
    if name.lower().endswith((".pt", ".bundle")):
        from ...detectors.opening import open_source
        from ...model_yaml import dialect

        network = open_source(source).model
        d = getattr(network, "yaml", None)
        if not isinstance(d, dict):
            raise CheckpointError(f"{name}: its detector holds no model YAML to draw. Give the YAML itself.")
        d = deepcopy(d)
        d.setdefault("yaml_file", name)
        head = getattr(network.model[-1], "nc", None)
        if isinstance(head, int) and "nc" in d:
            d["nc"] = head
        return dialect.to_ultralytics(d, name), Path(name).name
    path = find.require(source)
    return load.load_ultralytics(name, path), Path(name).name if os.sep in name else name


def scene_of(d: dict[str, Any], name: str, imgsz: int = 640, *, built: bool = True) -> Scene:
    """Return what is drawn of a model.

    Args:
        d: A valid model dictionary in the dialect of ultralytics.
        name: Its name.
        imgsz: Side of the image in pixels.
        built: Measure channels and sizes on its layers, built without memory for their weights; else, and where a layer
            cannot be run so, they are inferred from the rows.
    """
    graph = Graph.of(d)
    scale = Scale.of(d)
    wide, strides = widths(graph, d, scale), graph.strides()
    shapes = measure(d, imgsz) if built else [None] * len(graph.nodes)
    items = []
    for i, node in enumerate(graph.nodes):
        shape = shapes[i]
        stride = strides[node]
        channels = wide[node]
        if shape is not None:
            channels, stride = shape[0], imgsz / max(shape[1], 1)
        last = i == len(graph.nodes) - 1
        size = shape[1:] if shape is not None else _size(imgsz, stride)
        part = "output" if last else node.part
        repeats = node.tail[0] if isinstance(node.tail[0], int) else 1
        items.append(
            Item(
                i, node.module, _repeats(repeats, d), part, "output" if last else kind_of(node, d), None if last else stride,
                None if last else channels, None if last else size, args=_args(node, d, last),
            )
        )  # fmt: skip
    at = dict(zip(graph.nodes, items))
    links = [Link(None if e.target is None else at[e.target], at[node]) for node in graph.nodes for e in node.edges]
    return Scene(name, (imgsz, imgsz), items, links, channels=int(d.get("channels", d.get("ch", 3))))


def kind_of(node: Any, d: Mapping[str, Any]) -> str:
    """Return what a row is, as for :class:`Item`."""
    what = named(node.module, d)
    plain = node.module.rpartition(".")[2]
    if plain in _JOINS:
        return "attention" if what is not None else "join"
    if what is not None and (what.is_attention or what.kind in ("", "block")) and what.name not in _WITHOUT:
        return "attention"
    if plain in _RESIZES:
        return "resize"
    if plain in _POOLS:
        return "pool"
    return "block" if is_block(node) or plain in ("C2PSA", "PSA", "C2fPSA", "AIFI") else "conv"


def measure(d: dict[str, Any], imgsz: int) -> list[tuple[int, int, int] | None]:
    """Return each row's output channels, height and width, from its layers on torch's meta device, without memory.

    Args:
        d: A valid model dictionary in the dialect of ultralytics.
        imgsz: Side of the image in pixels.

    Returns:
        None for a row whose layer cannot be run so, and for the last one.

    Raises:
        RowError: A row cannot be built; the message names it.
    """
    import torch
    import ultralytics.nn.tasks as tasks

    from ...hook.host_errors import told_by_row
    from ...hook.install import install
    from ...hook.memory_need import quiet

    count = len(d["backbone"]) + len(d["head"])
    if not hasattr(torch.device, "__enter__"):  # before torch 2.0
        return [None] * count
    install(strict=True)
    channels = d.get("channels", d.get("ch", 3))
    found: list[tuple[int, int, int] | None] = []
    with told_by_row(str(d.get("yaml_file") or "")), torch.random.fork_rng(devices=[]), torch.device("meta"), quiet():
        layers, _ = tasks.parse_model(deepcopy(d), channels, verbose=False)
        outputs: list[Any] = []
        image: Any = torch.empty(1, channels, imgsz, imgsz)
        for layer in list(layers)[:-1]:
            outputs.append(_run(layer.eval(), outputs, image))
            found.append(_shape(outputs[-1]))
    return [*found, None]


def _run(layer: Any, outputs: list[Any], image: Any) -> Any:
    """The output of one layer, or None where it cannot be run on the meta device."""
    import inspect

    import torch

    def one(f: int) -> Any:
        return outputs[f] if outputs else image

    given = [one(f) for f in layer.f] if isinstance(layer.f, list) else one(layer.f)
    if given is None or (isinstance(given, list) and any(g is None for g in given)):
        return None
    text = [torch.empty(1, 80, 512)] if "guide" in inspect.signature(type(layer).forward).parameters else []
    with contextlib.suppress(YoloAttnError, Exception), torch.no_grad():  # what a layer needs besides maps cannot be told
        return layer(given, *text)
    return None


def _shape(out: Any) -> tuple[int, int, int] | None:
    maps = [v for v in (out if isinstance(out, (list, tuple)) else [out]) if getattr(v, "ndim", 0) == 4]
    if not maps:
        return None
    height, width = maps[-1].shape[2:]
    return sum(int(v.shape[1]) for v in maps if v.shape[2:] == maps[-1].shape[2:]), int(height), int(width)


def _args(node: Any, d: Mapping[str, Any], last: bool) -> str:
    """A row's arguments as text; of a head without its anchors, which no picture shows."""
    known = {k: d.get(k) for k in ("nc", "kpt_shape", "nm", "npr", "ne")}
    given = [None if a == "None" else known.get(a, a) if isinstance(a, str) else a for a in node.args]
    if last:
        given = [a for a in given if a != "anchors" and not (isinstance(a, list) and a and isinstance(a[0], list))]
    return flow(given)


def _size(imgsz: int, stride: float) -> tuple[int, int] | None:
    side = math.ceil(imgsz / stride)
    return (side, side) if stride >= 1 else None


def _repeats(n: int, d: Mapping[str, Any]) -> int:
    """Repeats after depth scaling, by the hosts' rule."""
    scales = d.get("scales") or {}
    depth = d.get("depth_multiple", 1.0)
    if scales:
        letter = d.get("scale") or ""
        depth = (scales[letter] if letter in scales else next(iter(scales.values())))[0]
    return max(round(n * float(depth)), 1) if n > 1 else n
