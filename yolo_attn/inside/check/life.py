"""The life of a module in a training: copied, averaged, saved, loaded, fused, and what its names do to the hosts."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

from .remedies import remedy_for
from .repeat import far
from .state import bare_tensors, hidden_state, unpicklable
from .subject import Subject, mapped, quiet
from .verdict import Doubt, Fault, Skip

__all__ = ["averaged", "copied", "fused", "names", "optimizers", "saved"]


def copied(s: Subject) -> str:
    """`deepcopy`, as for the averaged weights, after a training step: the same module."""
    import torch

    with quiet():
        m = s.build(stir=True).train()
        m(mapped(s.maps(batch=4), lambda v: v.requires_grad_())).square().sum().backward()
        m.eval()
        try:
            twin = copy.deepcopy(m)
        except Exception as exc:  # depends on its attributes
            name, part = unpicklable(m, copy.deepcopy)
            fault = s.fault(exc, "cannot be copied, as a training does for its averaged weights", "keep plain data in self")
            raise Fault(fault.said, fault.remedy, s.line_of(part, name) if name else fault.line) from exc
        x = s.maps()
        with torch.no_grad():
            if not torch.equal(twin(x), m(x)):
                raise Fault("a copy gives another result", "keep plain data in self", s.sources.method(s.cls, "forward"))
            for p in twin.parameters():
                p.add_(1.0)
            shared = [n for (n, p), q in zip(m.named_parameters(), twin.parameters()) if torch.equal(p, q) and p.numel()]
    if shared:
        raise Fault(f"a copy shares {shared[0]} with the original", "keep no second reference to a parameter outside of self", None)
    return "equal"


def saved(s: Subject) -> str:
    """pickle, `torch.save` and the state dict: what comes back computes the same."""
    import torch

    with quiet():
        m = s.build(stir=True).train()
        for seed in (0, 1):
            with torch.no_grad():
                m(s.maps(batch=4, seed=seed))
        m.eval()
    _registered(s, m)
    with quiet():
        x = s.maps(seed=5)
        with torch.no_grad():
            want = m(x)
        twins = []
        try:
            twins.append(("pickle", pickle.loads(pickle.dumps(m))))
            file = io.BytesIO()
            torch.save(m, file)
            file.seek(0)
            twins.append(("torch.save", torch.load(file, weights_only=False)))
        except Exception as exc:  # depends on its attributes
            name, part = unpicklable(m, pickle.dumps)
            what = f" because of self.{name}" if name else ""
            raise Fault(
                f"cannot be saved{what}: {type(exc).__name__}: {str(exc).splitlines()[0][:160]}",
                remedy_for(str(exc), "keep plain data in self; a function stands in the file, a class as well"),
                s.line_of(part, name) if name else s.sources.of_error(exc),
            ) from exc
        fresh = s.build(seed=9)
        try:
            fresh.load_state_dict(m.state_dict())
        except RuntimeError as exc:
            raise s.fault(exc, "its state cannot be loaded into a fresh one", "make every parameter and buffer in __init__") from exc
        fresh.eval()
        with torch.no_grad():
            for way, twin in (*twins, ("state_dict", fresh)):
                got = twin(x)
                if not torch.equal(got, want):
                    raise _lost(s, way, m, twin, got, want)
        moved = [h for h in hidden_state(m, fresh) if "buffer" in h[2]]
    if moved:
        part, name, what = moved[0]
        raise Fault(f"self.{name}, {what}, changes in training and is missing from the state", "leave persistent=False out", s.line_of(part, name))
    return "pickle, torch.save and state_dict give the same"


def _registered(s: Subject, m: Any) -> None:
    stays = bare_tensors(m)
    if stays:
        part, name, what = stays[0]
        raise Fault(f"self.{name} is {what}: {_BARE[what]}", _REGISTER[what], s.line_of(part, name))


_BARE = {
    "a plain tensor": ".to(device) leaves it, and the state dict lacks it",
    "a list of layers": "their weights are not trained, saved or moved",
    "a list of tensors": ".to(device) leaves them, and the state dict lacks them",
}
_REGISTER = {
    "a plain tensor": "self.register_buffer('name', tensor), or nn.Parameter where it is learned",
    "a list of layers": "nn.ModuleList([...])",
    "a list of tensors": "nn.ParameterList([...]), or register_buffer for each",
}


def _lost(s: Subject, way: str, m: Any, twin: Any, got: Any, want: Any) -> Fault:
    """A twin that differs: the state that did not travel."""
    lost = hidden_state(m, twin)
    if not lost:
        return Fault(
            f"what {way} brings back gives another result, {far(got, want)}",
            "keep all that the result depends on in parameters and buffers",
            s.sources.call(s.cls, ("random.", "np.random."), ("forward", "__init__")) or s.sources.method(s.cls, "__init__"),
        )
    part, name, what = lost[0]
    remedy = "leave persistent=False out" if what == "a buffer with persistent=False" else "self.register_buffer('name', tensor)"
    return Fault(f"self.{name}, {what}, is missing from the state: {way} brings back another result, {far(got, want)}", remedy, s.line_of(part, name))


def averaged(s: Subject) -> str:
    """The host's averaged weights (EMA) follow the module, and are what is saved."""
    import torch

    try:
        from ultralytics.utils.torch_utils import ModelEMA
    except ImportError as exc:
        raise Skip("ultralytics is not installed") from exc
    with quiet():
        m = s.build(stir=True).train()
        try:
            ema = ModelEMA(m, decay=0.5, tau=1)
        except Exception as exc:  # depends on its attributes
            raise s.fault(exc, "the host cannot copy it for its averaged weights") from exc
        with torch.no_grad():
            for p in m.parameters():
                p.mul_(0.5)
            m(s.maps(batch=4))
        for _ in range(60):
            ema.update(m)
        m.eval()
        x = s.maps()
        with torch.no_grad():
            a, b = ema.ema(x), m(x)
    if not torch.allclose(a, b, rtol=1e-3, atol=1e-4):
        lost = hidden_state(m, ema.ema)
        part, name, _ = lost[0] if lost else (m, "", "")
        raise Fault(
            f"after 60 updates the averaged weights compute something else, {far(a, b)}",
            "keep what changes in training in floating-point parameters and buffers",
            s.line_of(part, name) if name else s.sources.method(s.cls, "__init__"),
        )
    return "follow the module"


def fused(s: Subject) -> str:
    """`fuse()` of the host, before val, predict and export: convolutions of the host inside take in their batch norms."""
    import torch

    try:
        from ultralytics.nn.tasks import BaseModel
    except ImportError as exc:
        raise Skip("ultralytics is not installed") from exc

    class Around(BaseModel):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            torch.nn.Module.__init__(self)
            self.model = torch.nn.Sequential(inner)

        def is_fused(self, thresh: int = 10) -> bool:
            return False

        def info(self, *_: Any, **__: Any) -> None:
            """Print nothing."""

    with quiet():
        m = s.build()
        with torch.no_grad():
            m.eval()
            for part in m.modules():
                if isinstance(part, torch.nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
                    part.running_mean.normal_()
                    part.running_var.uniform_(0.5, 2.0)
            x = s.maps()
            want = m(x).clone()
            layers = sum(1 for _ in m.modules())
            try:
                Around(m).fuse()
                got = m(x)
            except Exception as exc:  # a module can raise anything
                raise s.fault(exc, "after the host's fuse()", "call a layer of the host as a whole, self.conv(x), and not its .bn or .act") from exc
    if not torch.allclose(got, want, rtol=1e-3, atol=1e-4):
        raise Fault(
            f"another result after the host's fuse(), {far(got, want)}",
            "call a layer of the host as a whole, self.conv(x), and not its .conv, .bn or .act",
            s.sources.first(s.cls, _reads_inside, ("forward",)) or s.sources.method(s.cls, "forward"),
        )
    gone = layers - sum(1 for _ in m.modules())
    return f"equal, {gone} batch norms folded" if gone else "equal"


def _reads_inside(node: Any) -> bool:
    import ast

    return isinstance(node, ast.Attribute) and node.attr in ("conv", "bn", "act") and isinstance(node.value, ast.Attribute)


def names(s: Subject) -> str:
    """No attribute takes a method of torch away, nor a name that the hosts set on each layer."""
    from torch import nn

    from ...registry.layer_class import RESERVED

    m = s.build()
    methods = {n for n in dir(nn.Module) if callable(getattr(nn.Module, n)) and not n.startswith("__")}
    for part in m.modules():
        own = {*vars(part), *part._parameters, *part._modules, *part._buffers}
        hidden = sorted(methods & own - ({"forward"} if s.form is not None or s.inputs > 1 else set()))
        if hidden:
            raise Fault(f"self.{hidden[0]} hides nn.Module.{hidden[0]}()", "rename the attribute", s.line_of(part, hidden[0]))
        taken = sorted(set(RESERVED) & own) if part is m else []
        if taken:
            raise Fault(f"self.{taken[0]} is a name that the hosts set on every layer", "rename the attribute", s.line_of(part, taken[0]))
    return "no method of torch is hidden"


def optimizers(s: Subject) -> str:
    """The optimizers of YOLOv5 v6.0 to v6.2 collect parameters that are called `weight` or `bias`, and no others."""
    m = s.build()
    wrong = [(part, n) for part in m.modules() for n, _ in part.named_parameters(recurse=False) if n not in ("weight", "bias")]
    if wrong:
        part, name = wrong[0]
        if _torchs(part):
            return f"weight and bias, and {name} of torch's {type(part).__name__}"
        raise Doubt(
            f"the parameter self.{name} is called neither weight nor bias: YOLOv5 v6.0 to v6.2 would never train it",
            "call it self.weight or self.bias; of several, each in a small module of its own",
            s.line_of(part, name),
        )
    return "parameters are called weight and bias"


def _torchs(part: Any) -> bool:
    return type(part).__module__.startswith("torch.")
