"""One run after another: equal results, nothing kept between them, nothing made in forward."""

from __future__ import annotations

import copy
from typing import Any

from .state import changed_attributes
from .subject import Subject, mapped, quiet
from .verdict import Doubt, Fault

__all__ = ["built_in_forward", "far", "repeatable", "state"]


def far(a: Any, b: Any) -> str:
    """Return how far two results are apart, for messages."""
    return f"off by up to {float((a - b).abs().max()):.3g}"


def repeatable(s: Subject) -> str:
    """Two runs are equal, in training and in eval mode, and PyTorch's deterministic algorithms have each operation."""
    import torch

    from .watch import Watch

    dropout = False
    for train in (False, True):
        with quiet():
            m = s.build(stir=True).train(train)
            x = s.maps()
            twin = copy.deepcopy(m)
            ops = Watch(s.sources)
            torch.manual_seed(1)
            try:
                with ops, torch.no_grad():
                    a = m(x).clone()
                torch.manual_seed(2)
                with torch.no_grad():
                    b = twin(x)
            except Exception as exc:  # a module can raise anything
                raise s.fault(exc, "in training" if train else "in eval mode") from exc
            drop = [p for p in m.modules() if isinstance(p, (torch.nn.modules.dropout._DropoutNd, torch.nn.RReLU)) or "drop" in type(p).__name__.lower()]
        if torch.equal(a, b) or (train and (drop or ops.random)):
            dropout = dropout or (train and not torch.equal(a, b))
            continue
        line = next((o.line for o in ops.random if o.line is not None), None)
        line = line or s.sources.call(s.cls, ("random.", "np.random.", "numpy.random.", "time.", "uuid4"))
        mode = "training" if train else "eval mode"
        raise Fault(
            f"two runs on one input differ in {mode}, by up to {float((a - b).abs().max()):.3g}",
            "draw random numbers in training only (if self.training:), in a layer such as nn.Dropout",
            line or s.sources.method(s.cls, "forward"),
        )
    _deterministic(s)
    return "equal in eval mode; random in training, as its dropout is" if dropout else "equal in training and eval mode"


# Operations whose backward pass has no deterministic kernel on CUDA, as torch.use_deterministic_algorithms lists them.
_RANDOM_ON_CUDA = (
    "adaptive_avg_pool2d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward",
    "fractional_max_pool2d_backward", "upsample_bicubic2d_backward", "upsample_linear1d_backward", "grid_sampler_2d_backward",
    "reflection_pad2d_backward", "replication_pad2d_backward", "max_unpool2d", "histc", "bincount", "kthvalue", "put_",
)  # fmt: skip


def _deterministic(s: Subject) -> None:
    """Ultralytics trains with deterministic algorithms unless told otherwise."""
    import warnings

    import torch

    from .watch import Watch

    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    ops = Watch(s.sources)
    with quiet(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        m = s.build().train()
        x = mapped(s.maps(), lambda v: v.requires_grad_())
        torch.use_deterministic_algorithms(True)
        try:
            with ops:
                m(x).square().sum().backward()
        except RuntimeError as exc:
            if "deterministic" not in str(exc):
                raise s.fault(exc, "the backward pass fails") from exc
            raise Fault(f"no deterministic kernel: {str(exc).splitlines()[0][:160]}", _FORM, s.sources.of_error(exc)) from exc
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn)
    if any("deterministic" in str(w.message) for w in told):
        raise Doubt(f"{str(told[0].message).splitlines()[0][:160]}", _FORM, s.sources.method(s.cls, "forward"))
    found = next((o for o in ops.seen if o.op in _RANDOM_ON_CUDA), None)
    if found is not None:
        forward = found.op.replace("_backward", "").lstrip("_")
        line = next((o.line for o in ops.seen if o.line is not None and o.op.lstrip("_") == forward), None)
        raise Doubt(
            f"{found.op} has no deterministic kernel on a GPU: trainings with deterministic=True (the default of ultralytics) warn and differ",
            _FORM,
            line or s.sources.method(s.cls, "forward"),
        )


_FORM = "use a form that has one: x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True), F.avg_pool2d, zero padding"


def state(s: Subject) -> str:
    """A result depends on input and weights alone: nothing is kept from one forward pass to the next."""
    import torch

    with quiet(), torch.no_grad():
        m = s.build(stir=True).eval()
        x, other = s.maps(), mapped(s.maps(seed=3), lambda v: 5 * v + 1)
        before = [dict(vars(p)) for p in m.modules()]
        a = m(x).clone()
        m(other)
        b = m(x)
        moved = changed_attributes(m, before)
    if torch.equal(a, b) and not moved:
        return "nothing is kept between two runs"
    part, name = moved[0] if moved else (m, "")
    where = s.line_of(part, name, ("forward",)) if name else s.sources.method(s.cls, "forward")
    if torch.equal(a, b):
        raise Doubt(f"forward changes self.{name}: torch.compile builds again, and what is traced keeps the first", _STATE, where)
    what = f" with self.{name}, which forward changes" if name else ""
    raise Fault(f"the same input gives another result after another image{what}: {far(a, b)}", _STATE, where)


_STATE = "compute it from x, or keep it in a registered buffer that changes in training only (if self.training:)"


def built_in_forward(s: Subject) -> str:
    """Layers and parameters are made by the constructor: what forward makes is never trained, saved or moved."""
    import torch
    from torch import nn

    made: list[tuple[Any, Any]] = []
    plain = nn.Module.__init__

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append((self, s.sources.of_frames()))
        plain(self, *args, **kwargs)

    with quiet(), torch.no_grad():
        m = s.build().train()
        had = {n for n, _ in m.named_parameters()} | {n for n, _ in m.named_buffers()}
        nn.Module.__init__ = noted  # type: ignore[method-assign]
        try:
            m(s.maps())
        finally:
            nn.Module.__init__ = plain  # type: ignore[method-assign]
        new = ({n for n, _ in m.named_parameters()} | {n for n, _ in m.named_buffers()}) - had
    learned = [(part, line) for part, line in made if any(True for _ in part.parameters(recurse=False))]
    if learned or new:
        what = f"{type(learned[0][0]).__name__} with weights" if learned else f"{sorted(new)[0]}"
        line = learned[0][1] if learned else s.line_of(m, sorted(new)[0].partition(".")[0], ("forward",))
        raise Fault(
            f"{what} is made in forward: new numbers in each run, or unknown to optimizer and checkpoint",
            "make it in __init__: self.conv = nn.Conv2d(...)",
            line or s.sources.method(s.cls, "forward"),
        )
    tensor = s.sources.call(s.cls, ("torch.tensor", "torch.Tensor", "torch.FloatTensor", "from_numpy"))
    if tensor is not None:
        raise Doubt("a constant tensor is made in each forward pass", "make it once: self.register_buffer('kernel', ...) in __init__", tensor)
    return "nothing with weights"
