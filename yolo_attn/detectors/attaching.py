"""Attention into a detector that is there already, and out again: no YAML to write, every weight in its own layer.

:func:`attach` and :func:`detach` take a detector of either host in memory, or what :func:`.loading.load` can open.
The rows come from :mod:`.placement`, the weights go by :mod:`.weights`; what is new here is that everything else about
a detector comes along (names, task, class widths, what was set on its head), and that the result is proved: with an
identity start one forward pass of both must agree.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, UsageError, YoloAttnError, first_line
from ..files import scratch
from ..hook import resolve
from ..model_yaml import find, placement
from ..registry import plugins
from ..weights import align, checkpoint, start_from, untrained
from ..weights.attention import attention_in
from . import opening, source

__all__ = ["attach", "detach", "file_name"]

# The rows of a detector as they were before anything was attached, kept in its YAML and so in its checkpoints.
BEFORE = "before_attach"
# Attributes that belong to one network and not to what it is a copy of.
_ITS_OWN = frozenset(["yaml", "save", "training", "criterion", "stride", "pt_path"])
_GRAPH = frozenset(["f", "i", "type", "np", "training"])
_PLAIN = (bool, int, float, str, tuple, type(None))
AGREE = 1e-5  # largest difference relative to the output's scale


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
    return _result(handle, network, new, proved=start == "identity")


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
    return _result(handle, network, new, proved=False)


def file_name(stem: str, module: str, where: Sequence[str], after: Sequence[str]) -> str:
    """Return the stem of a model's name with attention, as the kit's own YAMLs are named: ``yolov5n_se_neck``."""
    parts = [stem, module.rpartition(".")[2].removesuffix("Attention") or module]
    parts += [p for p in where if p != "backbone"] + [f"after_{a}" for a in after]
    return re.sub(r"[^\w.-]+", "_", "_".join([parts[0], *(p.lower() for p in parts[1:])]))


# -- what is given -------------------------------------------------------------------------------------------------


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


# -- what is given back --------------------------------------------------------------------------------------------


def _result(handle: Any, network: Any, d: dict[str, Any], *, proved: bool) -> Any:
    new = _rebuilt(network, d)
    if proved:
        _prove(network, new, d["yaml_file"])
    device = next((p.device for p in network.parameters()), None)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
    new = new.to(device=device, dtype=dtype).train(network.training)
    return new if handle is None else _handle(handle, new)


def _rebuilt(old: Any, d: dict[str, Any]) -> Any:
    """Build the rows of `d` as a network of the class of `old`, with everything that `old` is beside its rows.

    Raises:
        CheckpointError: A weight would lose its layer.
    """
    name = str(d["yaml_file"])
    with _quiet(old):
        try:
            new = type(old)(copy.deepcopy(d), **_words(old))
        except YoloAttnError:
            raise
        except Exception as exc:  # a host's parser raises whatever a wrong row leads to
            raise ConfigError(f"{name} cannot be built: {type(exc).__name__}: {first_line(exc)[:300]}") from exc
        report = align.align(old, new)
        theirs = old.state_dict()
        renamed = {t: theirs[s] for t, s in {**report.mapping, **report.misfits}.items()}
        new = source.widen_classes(new, renamed)
    dtype = next((v.dtype for v in theirs.values() if v.is_floating_point()), None)
    new = new.to(dtype) if str(dtype) == "torch.float64" else new.float()
    for key, value in vars(old).items():
        if not key.startswith("_") and key not in _ITS_OWN and not callable(value):
            vars(new)[key] = copy.deepcopy(value)
    for key, child in old._modules.items():
        if key != "model" and child is not None:  # a text encoder that the host keeps beside the rows
            new.add_module(key, copy.deepcopy(child))
    if hasattr(old, "pt_path"):
        new.pt_path = None  # of another file: an export is named by the model
    if hasattr(old, "yaml_file"):
        new.yaml_file = name
    report = align.transfer(old, new, force=True)
    _check_whole(report, old, new, name)
    for layer in report.layers:
        if layer.source is not None:
            _carry(old.model[layer.source], new.model[layer.row])
    return new


def _words(network: Any) -> dict[str, Any]:
    import inspect

    known = inspect.signature(type(network).__init__).parameters
    return {"verbose": False} if "verbose" in known else {}


@contextlib.contextmanager
def _quiet(network: Any) -> Iterator[None]:
    if type(network).__module__.startswith("ultralytics."):
        with source.quiet_host():
            yield
    else:
        from .classic import quiet

        with quiet():
            yield


def _carry(old: Any, new: Any) -> None:
    """Set what was set by hand on a layer: whether a head is end-to-end, how many boxes it keeps, `eps` of a norm."""
    twins = dict(new.named_modules())
    for path, module in old.named_modules():
        twin = twins.get(path)
        if twin is None or type(twin) is not type(module):
            continue
        for key, value in vars(module).items():
            if not key.startswith("_") and key not in _GRAPH and isinstance(value, _PLAIN):
                twin.__dict__[key] = value


def _check_whole(report: align.Report, old: Any, new: Any, name: str) -> None:
    """Refuse what would not be the same detector.

    Raises:
        CheckpointError: It is one.
    """
    there, here = attention_in(old), attention_in(new)
    fewer = Counter(there.values()) - Counter(here.values())
    leaving = tuple(f"{path}." for path, kind in there.items() if fewer[kind])
    gone = [k for k in report.unused if k.startswith("model.") and not k.startswith(leaving)]
    fresh = [k for k in report.new if k not in report.attention]
    other = [k for k, _, _ in report.mismatch]
    first = next(iter([*other, *fresh, *gone]), None)
    if first is not None:
        count = len(other) + len(fresh) + len(gone)
        fused = any(".bn." in k for k in fresh) and not any(".bn." in k for k in old.state_dict())
        why = (
            "its batch norms are folded into its convolutions, as predict, val and export do it; load it again"
            if fused
            else "its layers are not those of its YAML; were they changed by hand?"
        )
        raise CheckpointError(f"{name}: {count} tensors of the detector have no place, first {first}: {why}")
    if report.rewired:
        raise CheckpointError(f"{name}: rows {report.rewired} would read other rows than before")


def _prove(old: Any, new: Any, name: str) -> None:
    """Run both networks on one image.

    Raises:
        CheckpointError: Their outputs differ.
    """
    worst = untrained.difference(old, new)
    if not worst <= AGREE:
        raise CheckpointError(
            f"{name}: the outputs differ from the detector's by {worst:.2g} of their scale, although attention begins as "
            f"the identity. Was a layer changed by hand? With start='paper' nothing is compared."
        )


def _handle(old: Any, network: Any) -> Any:
    """Return a handle like `old` around a network.

    Its trainer takes the network from memory while ``ckpt`` is set; workers of a multi-GPU run (ultralytics before
    8.4) and the tuner's processes read ``overrides["model"]`` from the disk, so it is a checkpoint that lives as long
    as the handle does.
    """
    new = object.__new__(type(old))
    new.__dict__.update({k: copy.copy(v) for k, v in vars(old).items()})
    new.callbacks = {k: list(v) for k, v in old.callbacks.items()}
    new.predictor = new.trainer = new.metrics = None
    network.task = old.task
    place = contextlib.ExitStack()
    folder = place.enter_context(scratch())
    weakref.finalize(new, place.close)
    file = folder / f"{Path(network.yaml['yaml_file']).stem}.pt"
    args = {k: v for k, v in _plain_args(network).items() if k not in ("model", "resume", "pretrained")}
    network.args = {**args, "model": str(file), "task": old.task}
    start_from.save(network, file)
    new.model = network
    new.cfg = None
    new.ckpt = {"model": network, "epoch": -1, "train_args": dict(args)}
    new.ckpt_path = new.model_name = str(file)
    new.overrides = {**old.overrides, "model": str(file), "task": old.task}
    new.overrides.pop("pretrained", None)
    return new


def _plain_args(network: Any) -> dict[str, Any]:
    args = getattr(network, "args", None) or {}
    return dict(args if isinstance(args, dict) else vars(args))
