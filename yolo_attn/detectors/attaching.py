"""Insert attention into an existing detector, or remove it, without writing a YAML.

:func:`attach` and :func:`detach` take a detector of either host in memory, or anything that :func:`.opening.load` can
open. :mod:`yolo_attn.model_yaml.placement` changes the rows, :mod:`.rebuilding` builds them with the old weights.
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

__all__ = ["attach", "detach", "dictionary", "file_name"]

# Key of a detector's original rows in its model dictionary, and so in its checkpoints.
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
    """Insert attention into a detector and keep its weights.

    Args:
        detector: An ``ultralytics.YOLO`` (or ``RTDETR``, ``YOLOWorld``, ``YOLOE``) of any family and task, a network of
            either host, a checkpoint or bundle, or a model's name. It is not changed. Without a checkpoint of that
            name, a model's name gives a detector with random weights.
        module: A registered name (``"ECA"``), or one under ``register:`` of the detector's YAML.
        where: One or more placements, as for :func:`yolo_attn.insert`; ``neck`` if `after` is absent as well.
        after: Module types (``"C3"``) or row numbers after which attention is inserted. With `where`, both must hold.
        start: How attention begins. ``identity``: the outputs stay those of `detector` until training, which is
            checked; ``paper``: as in the paper; None: as the module's own constructor does, for modules without such
            an option.
        args: Options of the module, e.g. ``{"reduction": 8}``.

    Returns:
        A new detector of the same kind, task, names and class count, ready to train, predict, validate and export.
        Attach again for a second module.

    Raises:
        UsageError: No such placement or option, or `detector` is not a detector.
        UnknownModuleError: `module` is not registered.
        CheckpointError: A weight has no layer in the new detector (a fused model, layers changed by hand), or the
            outputs differ.
        HostError: The host cannot be imported.
    """
    if not isinstance(module, str):
        raise UsageError(f"module is a registered name such as 'ECA', got {module!r}")
    module = plugins.resolve(module)
    handle, network = _opened(detector, "attach")
    d = dictionary(network)
    if not where and after is None:
        where = "neck"
    what = resolve.named(module, d)
    if start == "identity" and what is not None and what.is_attention and "start" not in what.options:
        raise UsageError(
            f"{module} has no identity start: it would change the outputs of the detector at once. "
            "To insert it anyway, pass start=None"
        )
    places = [where] if isinstance(where, str) else list(where or ())
    rows = [str(after)] if isinstance(after, (str, int)) else [str(a) for a in after or ()]
    new = placement.insert(d, module, where=places or None, after=after, start=start, args=args)
    before = d.get(BEFORE) or {k: d[k] for k in ("backbone", "head", "yaml_file") if k in d}
    new[BEFORE] = copy.deepcopy(before)
    new["yaml_file"] = file_name(_stem(d), module, places, rows) + ".yaml"
    return rebuilt(handle, network, new, proved=start == "identity")


def detach(detector: Any, module: str | None = None) -> Any:
    """Remove attention from a detector: the inverse of :func:`attach`.

    The base weights stay those of `detector`, bit for bit. The outputs are unchanged while attention is still the
    identity; what attention has learned is lost, so a trained detector needs some training afterwards.

    Args:
        detector: As for :func:`attach`; it is not changed.
        module: Remove only this module. By default all attached attention; if none was attached, all attention of
            the detector's YAML.

    Returns:
        A new detector without it.

    Raises:
        UsageError: There is no such attention, or `detector` is not a detector.
        CheckpointError: A weight has no layer in the new detector.
    """
    handle, network = _opened(detector, "detach")
    d = dictionary(network)
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
        raise UsageError(f"detach: the detector has no {module or 'attention'} to remove; its attention: {found}")
    return rebuilt(handle, network, new, proved=False)


def file_name(stem: str, module: str, where: Sequence[str], after: Sequence[str]) -> str:
    """Return the stem of a model with attention, named like the kit's own YAMLs: ``yolov5n_se_neck``."""
    parts = [stem, module.rpartition(".")[2].removesuffix("Attention") or module]
    parts += [p for p in where if p != "backbone"] + [f"after_{a}" for a in after]
    return re.sub(r"[^\w.-]+", "_", "_".join([parts[0], *(p.lower() for p in parts[1:])]))


def _opened(detector: Any, verb: str) -> tuple[Any, Any]:
    """Return the ultralytics wrapper around a network, or None, and the network.

    Raises:
        UsageError: `detector` is neither.
    """
    import torch

    if isinstance(detector, (str, os.PathLike)):
        detector = opening.load(detector)
    handle = detector if _is_handle(detector) else None
    network = detector.model if handle is not None else detector
    kind = type(network).__name__
    if isinstance(network, (str, os.PathLike)):
        raise UsageError(f"{verb}: {network} is an exported file; give the .pt that it was exported from")
    if not isinstance(network, torch.nn.Module):
        raise UsageError(f"{verb}: a {kind} is neither a detector nor the name of one")
    for inner, what in (("_orig_mod", "compiled by torch.compile"), ("module", f"wrapped in {kind}")):
        if inner in network._modules:
            raise UsageError(f"{verb}: the network is {what}; give its .{inner}")
    if checkpoint.detector(network) is None or not isinstance(getattr(network, "yaml", None), dict):
        inside = ", or the detector inside it" if checkpoint.detector(network) is not None else ""
        raise UsageError(f"{verb}: a {kind} is not a YOLO detector. Give a YOLO object, a checkpoint or a name{inside}")
    if checkpoint.detector(network) is not network:
        raise UsageError(f"{verb}: a {kind} is wrapped around the detector; give its .model")
    return handle, network


def _is_handle(detector: Any) -> bool:
    """Whether this is the ultralytics wrapper around a network, without importing ultralytics."""
    return any(c.__module__ == "ultralytics.engine.model" and c.__name__ == "Model" for c in type(detector).__mro__)


def dictionary(network: Any) -> dict[str, Any]:
    """Return a copy of the model dictionary of a network, with its file's name and the number of classes in use."""
    d: dict[str, Any] = copy.deepcopy(network.yaml)
    if "yaml_file" not in d and getattr(network, "yaml_file", None):  # the classic host keeps it as an attribute
        d["yaml_file"] = network.yaml_file
    head = getattr(network.model[-1], "nc", None)
    if isinstance(head, int) and "nc" in d:
        d["nc"] = head  # the number of classes in use, whatever the YAML says
    return d


def _stem(d: Mapping[str, Any]) -> str:
    stem = Path(str(d.get("yaml_file") or "model")).stem
    base, letter = find.split_scale(stem)
    scale = str(d.get("scale") or "")
    if letter or not scale or base != stem:
        return stem
    named = re.fullmatch(r"(yolo(?:e-)?v?\d+)(.*)", stem)  # `yolov8-seg` of scale n is `yolov8n-seg`
    return f"{named.group(1)}{scale}{named.group(2)}" if named else stem
