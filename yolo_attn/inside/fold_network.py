"""Fold constant gates into the weights of a network, and prove each on its outputs.

Rows are taken from the last to the first, so that each goes through what is decided already: attention that stays, with
its own weights. A row is folded as a whole or not at all, and only where the outputs in double precision are those of the
network with the gate replaced by its constant. A rule that is wrong can therefore leave a row, but not change a detector.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Callable

from ..detectors.attaching import dictionary
from ..detectors.rebuilding import handle_around, rebuilt
from ..errors import CheckpointError, YoloAttnError, first_line
from .fold_rows import Row, rows_of, without

__all__ = ["AGREE", "Folded", "fold_network"]

EXACT = 1e-9  # largest difference of the outputs in double precision, relative to their scale
AGREE = 1e-5  # the same where weights are rounded to single precision


@dataclass(frozen=True)
class Folded:
    """A network without some of its attention.

    Args:
        network: The new network, or the ultralytics wrapper around it; None where no row was folded.
        d: Its model dictionary.
        rows: The rows that were folded.
        kept: Why others were not, by their number.
        difference: Of the outputs from those of the network whose gates are constants, relative to their scale.
    """

    network: Any
    d: dict[str, Any]
    rows: list[Row]
    kept: dict[int, str]
    difference: float


def fold_network(
    network: Any,
    gates: Mapping[str, Any],
    *,
    handle: Any = None,
    name: str = "",
    tell: Callable[[str], Any] = lambda line: None,
) -> Folded:
    """Fold constant gates into the weights around them.

    Args:
        network: A detector of either host, not fused; it is not changed.
        gates: (C,) the constant of each attention layer that has one, by the layer's name.
        handle: The ultralytics wrapper around it, if the result is to have one.
        name: Name of the new model's YAML; that of the detector with ``_folded`` when empty.
        tell: Called with a line for each row that is looked at.

    Raises:
        CheckpointError: The network does not run, is fused already, or its layers are not those of its YAML.
    """
    import torch

    from . import fold_trace as trace
    from .fold_constant import constant_gate, outputs

    d = dictionary(network)
    rows = rows_of(network, d)
    kept = {r.index: r.why for r in rows if r.why}
    wanted = [r for r in rows if not r.why and all(p in gates for p in r.layers)]
    done = []
    work, limit = _exact(network)
    image = _image(network).to(next(work.parameters()).dtype)
    wanted = _with_plain_form(network, d, wanted, kept)
    for row in reversed(wanted):
        tell(row.location)
        before = {k: v.clone() for k, v in work.state_dict().items()}
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(constant_gate(work, p, torch.as_tensor(gates[p]))) for p in row.layers]
            try:
                reference = outputs(work, image)
                for gate in reversed(held):
                    _fold(work, gate, image)
                worst = difference(reference, outputs(work, image))
                if not worst <= limit:
                    raise trace.Refused(f"the outputs would differ by {worst:.1g} of their scale")
                done.append(row)
            except trace.Refused as exc:
                kept[row.index] = _located(str(exc), d)
                for gate in held:
                    gate.gone = False
        if row.index in kept:
            work.load_state_dict(before)
    if not done:
        return Folded(None, d, [], kept, 0.0)
    done.reverse()
    new = without(d, done, left=len(done) < len(rows))
    new["yaml_file"] = name or f"{str(d.get('yaml_file') or 'model').removesuffix('.yaml')}_folded.yaml"
    inside = rebuilt(None, network, new, proved=False)
    _fill(inside, work, done)
    worst = difference(outputs(work, image), outputs(_exact(inside)[0].to(image.dtype), image))
    if not worst <= AGREE:
        raise CheckpointError(f"{new['yaml_file']}: the outputs differ by {worst:.1g} of their scale once it is rebuilt")
    made = inside if handle is None else handle_around(handle, inside)
    return Folded(made, new, done, kept, worst)


def _fill(network: Any, work: Any, gone: Sequence[Row]) -> None:
    """Load the folded weights, row by row; blocks keep the names of their weights without attention.

    Raises:
        CheckpointError: A weight is missing.
    """
    removed = {r.index for r in gone if r.tail is None}
    found = {}
    for name, value in work.state_dict().items():
        part, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        if part == "model" and number.isdigit():
            name = f"model.{int(number) - sum(i < int(number) for i in removed)}.{inner}"
            if int(number) in removed:
                continue
        found[name] = value
    own = network.state_dict()
    missing = [k for k, v in own.items() if k not in found or found[k].shape != v.shape]
    if missing:
        raise CheckpointError(f"{len(missing)} weights of the new rows have none to be loaded from, the first is {missing[0]}")
    network.load_state_dict({k: found[k] for k in own})


def _fold(network: Any, gate: Any, image: Any) -> None:
    from . import fold_trace as trace

    try:
        trace.forward(network, gate, image)
    except trace.Refused as exc:
        with contextlib.suppress(trace.Refused):
            trace.backward(network, gate, image)
            return
        raise exc


def _exact(network: Any) -> tuple[Any, float]:
    """Return a copy in double precision and what its outputs may differ; in single where the host has no other."""
    import torch

    from .fold_constant import outputs

    for dtype, limit in ((torch.float64, EXACT), (torch.float32, AGREE)):
        copy = deepcopy(network).cpu().eval().to(dtype)
        try:
            outputs(copy, _image(network).to(dtype))
        except (RuntimeError, TypeError, ValueError) as exc:  # layers that make single-precision tensors of their own
            failed = exc
            continue
        return copy, limit
    raise CheckpointError(f"the detector does not run on a small image: {type(failed).__name__}: {first_line(failed)[:200]}")


def _image(network: Any) -> Any:
    """Two images, (2, C, H, W): noise, and shapes on a plain ground."""
    import torch

    from ..detectors.drawn import drawn_images
    from ..runtime.image import blob, letterbox

    # A transformer's decoder chooses the best 300 positions of an image, which must have as many.
    head = type(network.model[-1]).__name__
    stride: Any = getattr(network, "stride", [32])
    side = 256 if head == "RTDETRDecoder" else 2 * max(32, int(max(stride)))
    channels = (getattr(network, "yaml", None) or {}).get("channels") or 3
    noise = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    shapes = torch.from_numpy(blob([letterbox(drawn_images(1)[0], (side, side))[0]]))
    return torch.cat((noise, shapes.mean(1, keepdim=True).expand(-1, channels, -1, -1) if channels != 3 else shapes))


def difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Return the largest difference of outputs, relative to the scale of each; infinite if their shapes differ."""
    from ..weights.untrained import apart

    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return float("inf")
    return max((apart(a, b) for a, b in zip(ours, theirs) if a.is_floating_point()), default=0.0)


def _with_plain_form(network: Any, d: dict[str, Any], rows: list[Row], kept: dict[int, str]) -> list[Row]:
    """Leave out blocks whose plain form has other weights, such as a self-attention; notes why."""
    blocks = [r for r in rows if r.tail is not None]
    if not blocks or _builds(network, d, blocks):
        return rows
    for row in blocks:
        if not _builds(network, d, [row]):
            kept[row.index] = f"without its attention, {row.tail[1]} has other weights"  # type: ignore[index]
    return [r for r in rows if r.index not in kept]


def _builds(network: Any, d: dict[str, Any], rows: list[Row]) -> bool:
    try:
        rebuilt(None, network, without(d, rows, left=True), proved=False)
    except YoloAttnError:
        return False
    return True


def _located(text: str, d: Mapping[str, Any]) -> str:
    """Name the row of a layer: ``model.13.m.0: adds ...`` to ``row 13 (SPPF), m.0, adds ...``."""
    names = [row[2] for part in ("backbone", "head") for row in d[part]]

    def row(match: re.Match[str]) -> str:
        i, inner, then = int(match[1]), match[2], match[3]
        text = f"row {i} ({names[i]})" + (f", {inner.lstrip('.')}" if inner else "")
        return f"{text}{',' if inner else ''} " if then else text

    return re.sub(r"^model\.(\d+)((?:\.\w+)*)(: )?", row, text)
