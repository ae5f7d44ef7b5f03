"""Load pretrained weights into a detector with attention, by logical layer.

A host loads by name, ``model.7.conv.weight`` into ``model.7.conv.weight``. One inserted row shifts the number of every
later layer, and a tensor of the right name and shape then belongs to another layer. Here the rows of both models are
aligned first: attention rows are set aside, the others are matched in order, by type and by their tensors. Attention
receives weights from attention of the same kind at the same placement; otherwise it is new, and the report says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import CheckpointError
from . import checkpoint
from .checkpoint import Checkpoint
from .report import Layer, Report
from .rows import Row, rows_of

__all__ = ["Layer", "Report", "align", "take_names", "transfer"]

THRESHOLD = 0.5


def transfer(
    source: Any,
    target: Any,
    *,
    minimum: float = THRESHOLD,
    force: bool = False,
    inference: bool = False,
) -> Report:
    """Load weights into a detector by logical layer.

    Args:
        source: A checkpoint file (`.pt` of ultralytics or YOLOv5, state dict, `.safetensors`), a detector, or a
            state dict.
        target: The detector of either host, or an ``ultralytics.YOLO``; changed in place.
        minimum: Least fraction of the target's tensors, without those of attention, that must receive weights, 0 to 1.
        force: Load even if fewer receive weights.
        inference: Raise an error if any tensor stays without weights, for a model that is not trained further.

    Returns:
        A report of which tensor went where.

    Raises:
        CheckpointError: The source cannot be read, has fused layers, is another architecture, or lacks weights (with
            `inference`).
    """
    ckpt = checkpoint.read(source) if isinstance(source, (str, os.PathLike)) else checkpoint.of(source)
    if not ckpt.tensors:
        raise CheckpointError(f"{ckpt.file}: a {type(source).__name__} is neither a detector nor a state dict")
    report = align(ckpt, target)
    if report.fraction < minimum and not force:
        raise CheckpointError(
            f"{ckpt.file} is another architecture: {report.matched} of {report.base} tensors of the detector "
            f"({report.fraction:.0%}) would receive weights, below {minimum:.0%}.{_hint(ckpt)} "
            f"Choose weights of the same model and size, or force the transfer."
        )
    if inference and (report.new or report.mismatch):
        missing = [*report.new, *(m[0] for m in report.mismatch)]
        attention = [k for k in missing if k in report.attention]
        what = f"{len(attention)} of them of attention, " if attention else ""
        raise CheckpointError(
            f"{ckpt.file} has no weights for {len(missing)} tensors ({what}first {(attention or missing)[0]}): the model "
            f"would detect with random weights. Use the checkpoint of this very model, or train it first."
        )
    detector = checkpoint.detector(target)
    detector.load_state_dict({k: ckpt.tensors[s] for k, s in report.mapping.items()}, strict=False)
    take_names(detector, ckpt.names, report)
    if detector is not target and hasattr(target, "ckpt"):
        target.ckpt = {
            **(target.ckpt or {}),
            "model": detector,
        }  # the host's trainer only uses these weights if this is set
    return report


def align(source: Any, target: Any) -> Report:
    """Return the report of :func:`transfer` without changing anything.

    Args:
        source: As for :func:`transfer`, without files.
        target: As for :func:`transfer`.

    Raises:
        CheckpointError: `target` is not a detector.
    """
    ckpt = checkpoint.of(source)
    detector = checkpoint.detector(target)
    if detector is None:
        raise CheckpointError(f"the target is not a YOLO detector but a {type(target).__name__}")
    there, here = rows_of(ckpt), rows_of(checkpoint.of(detector))
    pairs = _align([r for r in there if not r.attention_row], [r for r in here if not r.attention_row])
    partner = {t.index: s for s, t in pairs}
    partner.update(_align_attention(there, here, partner))
    mapping: dict[str, str] = {}
    layers, attention = [], set()
    for t in here:
        attention |= {t.key(k) for k in t.shapes if t.attention_of(k) is not None}
        layers.append(_match(partner.get(t.index), t, mapping))
    layers = [x for x in layers if x.transferred or x.new or x.mismatch]
    rows = {t.index: t for t in here}
    misfits = {k: partner[x.row].key(rows[x.row].name(k)) for x in layers for k, _, _ in x.mismatch}
    used = {*mapping.values(), *misfits.values()}
    unused = [k for k in ckpt.tensors if k not in used]
    report = Report(ckpt.file, layers, mapping, unused, attention, _rewired(there, here, pairs), misfits)
    report.classes = (_classes(ckpt.model, ckpt.names), _classes(detector, {}))
    return report


# -- alignment -----------------------------------------------------------------------------------------------------


def _align(there: list[Row], here: list[Row]) -> list[tuple[Row, Row]]:
    """Match rows in order so that as many tensors as possible match: sequence alignment by dynamic programming."""
    n, m = len(there), len(here)
    gain = [[_gain(s, t) for t in here] for s in there]
    best = [[0] * (m + 1) for _ in range(n + 1)]
    for a in range(n - 1, -1, -1):
        for b in range(m - 1, -1, -1):
            with_it = gain[a][b] + best[a + 1][b + 1] if gain[a][b] else 0
            best[a][b] = max(best[a + 1][b], best[a][b + 1], with_it)
    pairs, a, b = [], 0, 0
    while a < n and b < m:
        if gain[a][b] and best[a][b] == gain[a][b] + best[a + 1][b + 1]:
            pairs.append((there[a], here[b]))
            a, b = a + 1, b + 1
        elif best[a][b] == best[a + 1][b]:
            a += 1
        else:
            b += 1
    return pairs


def _gain(s: Row, t: Row) -> int:
    """The score of a pair: first by the names of its tensors, so that stages match their like, then by shapes."""
    if s.family and s.family != t.family:
        return 0
    ours, theirs = t.base(), s.base()
    named = ours.keys() & theirs.keys()
    if not s.family and (not named or _kinds(ours) != _kinds(theirs)):
        return 0
    return 1000 * (1 + len(named)) + sum(ours[k] == theirs[k] for k in named)


def _kinds(names: Iterable[str]) -> set[str]:
    """The names of a row's tensors without repeats and attention, which tell its type if only names are known."""
    return {re.sub(r"\.\d+\.", ".#.", k) for k in names if not re.search(r"(^|\.)attn\.", k)}


def _align_attention(there: list[Row], here: list[Row], partner: dict[int, Row]) -> dict[int, Row]:
    """Match attention rows of one kind after the same row; if only names are known, in the same gap."""
    at_there, at_here = {r.index: r for r in there}, {r.index: r for r in here}
    found: dict[int, Row] = {}
    taken = {s.index for s in partner.values()}
    typed = all(r.family for r in there)

    def fits(s: Row, t: Row) -> bool:
        if typed:
            origin = partner.get(_origin(t, at_here))
            return (
                s.attention_row
                and s.attention[""] == t.attention[""]
                and origin is not None
                and origin.index == _origin(s, at_there)
            )
        before = max((i for i in partner if i < t.index), default=None)
        after = min((i for i in partner if i > t.index), default=None)
        return (
            bool(s.shapes)
            and (before is None or s.index >= partner[before].index)
            and (after is None or s.index <= partner[after].index)
        )

    # Of several rows of one kind at one placement, prefer the one with the same shapes.
    for same in (True, False) if typed else (True,):
        for t in (r for r in here if r.attention_row and r.index not in found):
            for s in there:
                if s.index not in taken and (s.shapes == t.shapes or not same) and fits(s, t):
                    found[t.index] = s
                    taken.add(s.index)
                    break
    return found


def _origin(row: Row, rows: dict[int, Row]) -> int:
    """The row whose output an attention row attends to, skipping attention between them."""
    while row.attention_row and row.inputs and len(row.inputs) == 1 and row.inputs[0] in rows:
        row = rows[row.inputs[0]]
    return row.index


def _match(s: Row | None, t: Row, mapping: dict[str, str]) -> Layer:
    layer = Layer(t.index, t.module, s.index if s else None, 0, [], [], t.attention_row)
    if s is None:
        layer.new = [t.key(k) for k in t.shapes]
        return layer
    strange = {p for p, name in t.attention.items() if not _same_attention(s, t, p, name)}
    for k, shape in t.shapes.items():
        if k not in s.shapes or t.attention_of(k) in strange:
            layer.new.append(t.key(k))
        elif s.shapes[k] != shape:
            layer.mismatch.append((t.key(k), s.shapes[k], shape))
        else:
            mapping[t.key(k)] = s.key(k)
            layer.transferred += 1
    return layer


def _same_attention(s: Row, t: Row, path: str, name: str) -> bool:
    """Whether the attention at `path` is of the same kind in both rows and all its tensors fit."""
    if s.family and s.attention.get(path) != name:
        return False
    begin = path + "." if path else ""
    ours = {k: v for k, v in t.shapes.items() if k.startswith(begin)}
    theirs = {k: v for k, v in s.shapes.items() if k.startswith(begin)}
    return ours == theirs


def _rewired(there: list[Row], here: list[Row], pairs: list[tuple[Row, Row]]) -> list[int]:
    at_there, at_here = {r.index: r for r in there}, {r.index: r for r in here}
    back = {t.index: s.index for s, t in pairs}
    out = []
    for s, t in pairs:
        if s.inputs is None or t.inputs is None:
            continue
        ours = [back.get(_origin(at_here[i], at_here)) if i in at_here else -1 for i in t.inputs]
        theirs = [_origin(at_there[i], at_there) if i in at_there else -1 for i in s.inputs]
        if ours != theirs:
            out.append(t.index)
    return out


# -- small things --------------------------------------------------------------------------------------------------


def _classes(model: Any, names: Mapping[int, str]) -> int | None:
    if names:
        return len(names)
    head = list(model._modules["model"]._modules.values())[-1] if model is not None else None
    nc = getattr(head, "nc", None)
    return int(nc) if isinstance(nc, int) else None


def _hint(ckpt: Checkpoint) -> str:
    fused = any(k.endswith("conv.weight") for k in ckpt.tensors) and not any(".bn." in k for k in ckpt.tensors)
    return (
        " Its batch normalization is fused into its convolutions: use the checkpoint from before fusing."
        if fused
        else ""
    )


def take_names(detector: Any, names: dict[int, str], report: Report) -> None:
    """Copy class names to a detector without its own, if its head received all weights.

    Args:
        detector: The detector; changed in place.
        names: Class names by index.
        report: Report of the transfer.
    """
    own = getattr(detector, "names", None)
    head = report.layers[-1] if report.layers else None
    if not names or head is None or head.new or head.mismatch or len(own or ()) != len(names):
        return
    if own is None or all(str(k) == str(v) for k, v in _numbered(own)):
        detector.names = dict(names)


def _numbered(names: Any) -> list[tuple[Any, Any]]:
    return list(names.items()) if isinstance(names, Mapping) else list(enumerate(names))
