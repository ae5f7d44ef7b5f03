"""Attention into a detector that is there already, and out again: no YAML to write, every weight in its own layer.

:func:`attach` and :func:`detach` take a detector of either host in memory, or what :func:`.loading.load` can open.
The rows come from :mod:`.placement`, the weights go by :mod:`.weights`; what is new here is that everything else about
a detector comes along (names, task, class widths, what was set on its head), and that the result is proved: with an
identity start one forward pass of both must agree.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..hook import resolve
from ..model_yaml import find, placement
from ..registry import plugins
from ..weights import checkpoint
from ..weights.attention import attention_in
from . import opening
from .rebuilding import rebuilt

__all__ = ["attach", "detach", "file_name"]

# The rows of a detector as they were before anything was attached, kept in its YAML and so in its checkpoints.
BEFORE = "before_attach"


def attach(
    detector: Any,
    module: str,
    where: str | Iterable[str] | None = None,
    after: str | int | Iterable[str | int] | None = None,
    *,
    start: str | None = "identity",
    args: Mapping[str, Any] | Sequence[Any] | None = None,
) -> Any:
    """Put attention into a detector and keep all that it has learned.

    Args:
        detector: An ``ultralytics.YOLO`` (or ``RTDETR``, ``YOLOWorld``, ``YOLOE``) of any family and task, a network of
            either host, a checkpoint or bundle, or a model's name; it is not changed. A model's name without weights
            gives a detector with fresh ones.
        module: A registered name (``"ECA"``), or one under ``register:`` of the detector's YAML.
        where: One or more places, as :func:`yolo_attn.insert` knows them; ``neck`` if `after` is absent as well.
        after: Module types (``"C3"``) or row numbers that attention goes behind. With `where`, both must hold.
        start: ``identity``: the outputs are those of `detector` until it is trained, which is checked; ``paper``: as its
            authors say; None for a module of your own that has no such option.
        args: The module's options, e.g. ``{"reduction": 8}``.

    Returns:
        A new detector of the same kind, task, names and class count, ready to train, predict, validate and export.
        Attach again for a second module.

    Raises:
        UsageError: No such place or option, or nothing that attention can be attached to.
        UnknownModuleError: `module` is not registered.
        CheckpointError: A weight would lose its layer (a fused model, layers changed by hand), or outputs would differ.
        HostError: The host cannot be imported.
    """
    if not isinstance(module, str):
        raise UsageError(f"module is a registered name such as 'ECA', got {module!r}")
    module = plugins.resolve(module)
    handle, network = _opened(detector, "attach")
    d = _dictionary(network)
    if not where and after is None:
        where = "neck"
    what = resolve.named(module, d)
    if start == "identity" and what is not None and what.is_attention and "start" not in what.options:
        raise UsageError(
            f"{module} has no identity start, and the detector would be another one with it at once: "
            "start=None puts it in as it is"
        )
    places = [where] if isinstance(where, str) else list(where or ())
    rows = [str(after)] if isinstance(after, (str, int)) else [str(a) for a in after or ()]
    new = placement.insert(d, module, where=places or None, after=after, start=start, args=args)
    before = d.get(BEFORE) or {k: d[k] for k in ("backbone", "head", "yaml_file") if k in d}
    new[BEFORE] = copy.deepcopy(before)
    new["yaml_file"] = file_name(_stem(d), module, places, rows) + ".yaml"
    return rebuilt(handle, network, new, proved=start == "identity")


def detach(detector: Any, module: str | None = None) -> Any:
    """Take attention out of a detector: the inverse of :func:`attach`.

    The base weights are those of `detector`, bit for bit. Where attention was still the identity the outputs are too;
    what attention has learned since goes with it, so a trained detector needs some more training afterwards.

    Args:
        detector: As for :func:`attach`; it is not changed.
        module: Take out this one only. By default all that was attached; where nothing was, all attention in its YAML.

    Returns:
        A new detector without it.

    Raises:
        UsageError: There is no such attention, or this is nothing that attention can be taken out of.
        CheckpointError: A weight would lose its layer.
    """
    handle, network = _opened(detector, "detach")
    d = _dictionary(network)
    before = d.get(BEFORE)
    if module is None and isinstance(before, dict):
        new = {**d, **copy.deepcopy(before)}
        del new[BEFORE]
    else:
        new = placement.remove(d, module)
        if isinstance(before, dict):
            kept = placement.remove({**d, **before}, module)
            same = all(kept[part] == new[part] for part in ("backbone", "head"))
            new[BEFORE] = {k: kept[k] for k in before}
            if same:
                new.update(new.pop(BEFORE))
    if all(new[part] == d[part] for part in ("backbone", "head")):
        found = ", ".join(sorted(set(attention_in(network).values()))) or "none"
        raise UsageError(f"detach: the detector has no {module or 'attention'} to take out; its attention: {found}")
    return rebuilt(handle, network, new, proved=False)


def file_name(stem: str, module: str, where: Sequence[str], after: Sequence[str]) -> str:
    """Return the stem of a model's name with attention, as the kit's own YAMLs are named: ``yolov5n_se_neck``."""
    parts = [stem, module.rpartition(".")[2].removesuffix("Attention") or module]
    parts += [p for p in where if p != "backbone"] + [f"after_{a}" for a in after]
    return re.sub(r"[^\w.-]+", "_", "_".join([parts[0], *(p.lower() for p in parts[1:])]))


def _opened(detector: Any, verb: str) -> tuple[Any, Any]:
    """Return the host's handle around a network, or None, and the network.

    Raises:
        UsageError: Neither.
    """
    import torch

    if isinstance(detector, (str, os.PathLike)):
        detector = opening.load(detector)
    handle = detector if _is_handle(detector) else None
    network = detector.model if handle is not None else detector
    kind = type(network).__name__
    if isinstance(network, (str, os.PathLike)):
        raise UsageError(f"{verb}: {network} is an exported file; attention goes into the .pt that it was made from")
    if not isinstance(network, torch.nn.Module):
        raise UsageError(f"{verb}: neither a detector nor the name of one, but a {kind}")
    for inner, what in (("_orig_mod", "compiled by torch.compile"), ("module", f"wrapped in {kind}")):
        if inner in network._modules:
            raise UsageError(f"{verb}: the network is {what}; give the one inside, its .{inner}")
    if checkpoint.detector(network) is None or not isinstance(getattr(network, "yaml", None), dict):
        inside = ", or the detector inside it" if checkpoint.detector(network) is not None else ""
        raise UsageError(f"{verb}: a {kind} is no YOLO detector. Give a YOLO object, a checkpoint or a name{inside}")
    if checkpoint.detector(network) is not network:
        raise UsageError(f"{verb}: a {kind} is wrapped around the detector; give the one inside, its .model")
    return handle, network


def _is_handle(detector: Any) -> bool:
    """Whether this is the ultralytics host's wrapper around a network; without importing that host."""
    return any(c.__module__ == "ultralytics.engine.model" and c.__name__ == "Model" for c in type(detector).__mro__)


def _dictionary(network: Any) -> dict[str, Any]:
    d: dict[str, Any] = copy.deepcopy(network.yaml)
    if "yaml_file" not in d and getattr(network, "yaml_file", None):  # the classic host keeps it beside the rows
        d["yaml_file"] = network.yaml_file
    head = getattr(network.model[-1], "nc", None)
    if isinstance(head, int) and "nc" in d:
        d["nc"] = head  # what it detects, whatever its YAML said
    return d


def _stem(d: Mapping[str, Any]) -> str:
    stem = Path(str(d.get("yaml_file") or "model")).stem
    base, letter = find.split_scale(stem)
    scale = str(d.get("scale") or "")
    if letter or not scale or base != stem:
        return stem
    named = re.fullmatch(r"(yolo(?:e-)?v?\d+)(.*)", stem)  # `yolov8-seg` of scale n is `yolov8n-seg`
    return f"{named.group(1)}{scale}{named.group(2)}" if named else stem
