"""Rebuild a detector from changed rows, keeping its class, task, names, settings and every weight in its own layer."""

from __future__ import annotations

import contextlib
import copy
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, YoloAttnError, first_line
from ..hook.host_errors import told_by_row
from ..hook.memory_need import parameters, refuse_count
from ..system.drafts import scratch
from ..weights import align, start_from, untrained
from ..weights.attention import attention_in
from . import source

__all__ = ["handle_around", "rebuilt"]

# Attributes that are not copied to the new network.
_ITS_OWN = frozenset(["yaml", "save", "training", "criterion", "stride", "pt_path"])
# Of a layer: its place in the graph, and the size of the last image, for which a head keeps anchors that are not copied.
_GRAPH = frozenset(["f", "i", "type", "np", "training", "shape"])
_PLAIN = (bool, int, float, str, tuple, type(None))
AGREE = 1e-5  # largest allowed difference, relative to the scale of the outputs


def rebuilt(handle: Any, network: Any, d: dict[str, Any], *, proved: bool) -> Any:
    """Build a network from other rows, with the weights and settings of an existing one.

    Args:
        handle: The ultralytics wrapper around the network, or None.
        network: The existing network; it is not changed.
        d: The new model dictionary.
        proved: Check that both networks give equal outputs.

    Returns:
        The new wrapper, or the new network if `handle` is None.

    Raises:
        ConfigError: The host cannot build the rows.
        CheckpointError: A weight has no layer in the new network, or the outputs differ.
    """
    new = _network(network, d)
    if proved:
        _prove(network, new, d["yaml_file"])
    device = next((p.device for p in network.parameters()), None)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
    new = new.to(device=device, dtype=dtype).train(network.training)
    return new if handle is None else handle_around(handle, new)


def _network(old: Any, d: dict[str, Any]) -> Any:
    """Build the rows of `d` as a network of the class of `old`, with its weights and attributes."""
    name = str(d["yaml_file"])
    with _quiet(old):
        try:
            with told_by_row(name):
                parser = sys.modules.get(type(old).__module__)
                if parser is not None and hasattr(parser, "parse_model"):  # not for a subclass of the user's own
                    remedy = "Free memory, or insert a smaller module."
                    refuse_count(parameters(d, parser), name, remedy=remedy)
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
        if key != "model" and child is not None:  # such as the text encoder of YOLO-World
            new.add_module(key, copy.deepcopy(child))
    if hasattr(old, "pt_path"):
        new.pt_path = None  # the path of another file; exports are then named after the model
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
    """Copy plain attributes of a layer that users may have set: `end2end` and `max_det` of a head, `eps` of a norm."""
    twins = dict(new.named_modules())
    for path, module in old.named_modules():
        twin = twins.get(path)
        if twin is None or type(twin) is not type(module):
            continue
        for key, value in vars(module).items():
            if not key.startswith("_") and key not in _GRAPH and isinstance(value, _PLAIN):
                twin.__dict__[key] = value


def _check_whole(report: align.Report, old: Any, new: Any, name: str) -> None:
    """Check that all base weights have arrived and no base row reads from another row.

    Raises:
        CheckpointError: Not so.
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
            "its batch norms are fused into its convolutions, as predict, val and export do; load it again"
            if fused
            else "its layers are not those of its YAML; were they changed by hand?"
        )
        raise CheckpointError(
            f"{name}: {count} tensors of the detector have no matching layer, the first is {first}: {why}"
        )
    if report.rewired:
        raise CheckpointError(f"{name}: rows {report.rewired} would read from other rows than before")


def _prove(old: Any, new: Any, name: str) -> None:
    """Run both networks on one image.

    Raises:
        CheckpointError: Their outputs differ.
    """
    worst = untrained.difference(old, new)
    if not worst <= AGREE:
        raise CheckpointError(
            f"{name}: the outputs differ from the detector's by {worst:.2g} of their scale, although attention begins as "
            f"the identity. Was a layer changed by hand? start='paper' skips the comparison."
        )


def handle_around(old: Any, network: Any) -> Any:
    """Return a wrapper like `old` around a network.

    The trainer uses the network in memory while ``ckpt`` is set. Workers of a multi-GPU run (ultralytics before 8.4)
    and the tuner's processes read ``overrides["model"]`` from disk: a temporary checkpoint that is removed together
    with the wrapper.
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
