"""Find out whether a detector with pretrained weights computes the same as their source until it is trained.

This is measured and not taken from the options: each attention module runs and its output is compared with its input;
then the whole detector and the source run, and their outputs are compared.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from ..errors import YoloAttnError
from ..model_yaml.graph import Graph
from ..model_yaml.placement import remove
from . import checkpoint
from .align import Report
from .attention import attention_in
from .checkpoint import Checkpoint

__all__ = ["apart", "changing", "sentence"]

# Relative to the scale of the outputs: above what fp32 loses in a network whose gates are 1, far below the effect of any
# other gate.
TOLERANCE = 1e-4


def sentence(source: Any, target: Any, report: Report) -> str:
    """Return how a detector relates to the source of its weights until it is trained.

    Args:
        source: The checkpoint or detector that the weights came from.
        target: The detector with these weights; not changed.
        report: The report of the transfer.

    Returns:
        One sentence; empty if the detector has no attention.
    """
    detector = checkpoint.detector(target)
    ckpt = checkpoint.of(source)
    if detector is None or not attention_in(detector):
        return ""
    model = deepcopy(detector).float().eval().cpu()
    base, unknown = _source_model(ckpt, model)
    reasons = _reasons(report)
    try:
        gated, y = _run(model)
    except Exception as exc:  # the host reports a model that does not run at this size, or at all
        return f"how attention begins is not known: the detector does not run on a small image ({type(exc).__name__})"
    reasons += _not_identity(gated, model)
    if base is not None and not reasons:
        difference = _difference(y, _run(base)[1])
        if difference > TOLERANCE:
            reasons.append(f"its output differs from the source's by {difference:.0e} of its scale")
    if reasons:
        return f"the detector is not the source's until it is trained: {'; '.join(reasons)}"
    if base is None:
        return f"attention begins as the identity; whether the detector is the source's is not known: {unknown}"
    if unknown:
        return f"attention begins as the identity: until it is trained the detector is the source's, {unknown}"
    return "attention begins as the identity: the detector is the source's until it is trained"


def changing(target: Any) -> list[str]:
    """Return the paths of the attention modules whose output differs from their input.

    If the detector does not run on a small image, these are all of its attention modules.
    """
    model = deepcopy(checkpoint.detector(target)).float().eval().cpu()
    try:
        gated, _ = _run(model)
    except Exception:  # the host reports a model that does not run at this size, or at all
        gated = {}
    return [path for path in attention_in(model) if not gated.get(path)]


def difference(ours: Any, theirs: Any) -> float:
    """Return the difference of two detectors' outputs on one image, on the CPU in single precision.

    Args:
        ours: A detector of either host; not changed.
        theirs: Another one.

    Returns:
        The largest difference, relative to the scale of the outputs; infinite if their shapes differ.
    """
    a, b = (_run(deepcopy(m).float().eval().cpu())[1] for m in (ours, theirs))
    return _difference(a, b)


def _reasons(report: Report) -> list[str]:
    """The reasons that follow from the report alone."""
    reasons = []
    missing = [k for k in report.new if k not in report.attention]
    misfits = [k for k, _, _ in report.mismatch if k not in report.attention]
    for names, what in ((missing, "have no weights"), (misfits, "have another shape there")):
        if names:
            rows = _rows(int(k.split(".")[1]) for k in names)
            reasons.append(f"{len(names)} of its tensors {what} ({rows})")
    if report.rewired:
        reasons.append(f"{_rows(report.rewired)} {'reads' if len(set(report.rewired)) == 1 else 'read'} other inputs")
    return reasons


def _rows(numbers: Any) -> str:
    rows = sorted(set(numbers))
    shown = ", ".join(map(str, rows[:8])) + (" ..." if len(rows) > 8 else "")
    return f"row{'s' if len(rows) > 1 else ''} {shown}"


def _not_identity(gated: dict[str, bool], model: Any) -> list[str]:
    """The attention whose output differs from its input, as reasons."""
    found: dict[tuple[str, bool], list[int]] = {}
    for path, name in attention_in(model).items():
        if gated.get(path, True):
            continue
        knows = "start" in inspect.signature(type(model.get_submodule(path)).__init__).parameters
        found.setdefault((name, knows), []).append(int(path.split(".")[1]))
    return [
        f"{name} in {_rows(rows)} {'begins as its paper says' if knows else 'has no identity start'}"
        for (name, knows), rows in found.items()
    ]


# -- running -------------------------------------------------------------------------------------------------------


def _run(model: Any) -> tuple[dict[str, bool], list[Any]]:
    """Run a detector on a small image; return which attention modules return their input, and the outputs."""
    import torch

    same: dict[str, bool] = {}

    def watch(path: str) -> Any:
        def hook(_: Any, given: tuple[Any, ...], out: Any) -> None:
            x = given[0] if len(given) == 1 else None
            tensors = isinstance(x, torch.Tensor) and isinstance(out, torch.Tensor) and x.shape == out.shape
            same[path] = same.get(path, True) and tensors and apart(x, out) <= TOLERANCE

        return hook

    handles = [model.get_submodule(path).register_forward_hook(watch(path)) for path in attention_in(model)]
    stride: Any = getattr(model, "stride", [32])
    # A transformer's decoder chooses the best 300 positions of a picture, which must have as many.
    side = 256 if type(model.model[-1]).__name__ == "RTDETRDecoder" else 2 * max(32, int(max(stride)))
    channels = (getattr(model, "yaml", None) or {}).get("channels") or 3
    picture = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            return same, _flat(model(picture))
    finally:
        for handle in handles:
            handle.remove()


def _flat(y: Any) -> list[Any]:
    parts = y.values() if isinstance(y, dict) else y if isinstance(y, (list, tuple)) else None
    if parts is not None:
        return [t for part in parts for t in _flat(part)]
    return [y] if hasattr(y, "shape") else []


def _difference(ours: list[Any], theirs: list[Any]) -> float:
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return float("inf")
    return max((apart(a, b) for a, b in zip(ours, theirs)), default=0.0)


def apart(a: Any, b: Any) -> float:
    """The largest difference, relative to the scale; infinite if only one of two values is finite."""
    finite = a.isfinite() if hasattr(a, "isfinite") else None
    if finite is not None and not bool(finite.all()) and bool((finite == b.isfinite()).all()):
        a, b = a[finite], b[finite]  # anchors that a transformer leaves out
    difference = float((a - b).abs().max()) if a.numel() else 0.0
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-12) if a.numel() else 1.0
    return difference / scale if difference == difference else float("inf")


# -- the source ----------------------------------------------------------------------------------------------------


def _source_model(ckpt: Checkpoint, target: Any) -> tuple[Any, str]:
    """Return the source as a model that can run, and what that assumes, or why there is none.

    The module tree of a file is inert, and a YAML from a file is not built here, since it is untrusted. The model is
    built from the target's own YAML without attention, if the file's YAML has the same rows, with the file's tensors.
    """
    if ckpt.model is not None and not isinstance(ckpt.model, checkpoint.Inert):
        return deepcopy(ckpt.model).float().eval().cpu(), ""
    d = getattr(target, "yaml", None)
    if not isinstance(d, dict):
        return None, "the model does not know its YAML"
    assumed = ""
    try:
        bare = remove(d, all=True)
        if ckpt.yaml and _canonical(ckpt.yaml) != _canonical(bare):
            if _canonical(ckpt.yaml) != _canonical(d):
                return None, "the source was built from other rows than this model's without attention"
            bare = d
        elif not ckpt.yaml:
            assumed = "if that was built as this YAML without attention: the file holds tensors alone"
        with _quiet():
            model = type(target)(deepcopy(bare), **_options(type(target)))
        model.float().eval().load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in ckpt.tensors.items()}
        )
    except (YoloAttnError, RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError):
        return None, "the source cannot be built beside it"
    return model.eval(), assumed


def _options(cls: Any) -> dict[str, Any]:
    return {"verbose": False} if "verbose" in inspect.signature(cls.__init__).parameters else {}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Build without a table in the log and without advancing the random numbers of a training."""
    import torch

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.disable(before)


def _canonical(d: dict[str, Any]) -> list[Any]:
    """The rows of a model in canonical form: absolute `from`, YAML's null for "None", no arguments of the head."""
    rows = []
    graph = Graph.of(d)
    at = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        reads = [-1 if e.target is None else at[e.target] for e in node.edges]
        args = [] if node is graph.output else [None if a == "None" else a for a in node.args]
        rows.append([reads, node.tail[0], node.module, args])
    return rows
