"""Half precision: autocast and half weights with the activations of real detectors, and fp64."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from .subject import Subject, each, mapped, quiet
from .verdict import Doubt, Fault, Skip

__all__ = ["autocast", "double", "half_weights", "largest", "other_device"]

SIDE = 24  # 576 positions: a sum of activations of 1e3 leaves fp16 (65504), a mean does not

_SUMS = "sum in fp32: x.mean(dim, dtype=torch.float32).to(x.dtype), x.float() before a square, a variance or a norm"
_TYPE = "take the dtype from the input: y.to(x.dtype), torch.zeros(..., dtype=x.dtype)"


def autocast(s: Subject) -> str:
    """fp16 and bf16 autocast with activations of 1e3, which YOLO's necks reach: values and gradients stay finite."""
    names = [n for n in ("float16", "bfloat16") if _has_autocast(s.device, n)]
    if not names:
        raise Skip(f"this torch has no autocast of half precision on {s.device}")
    return _autocast(s, names, _large)


def _autocast(s: Subject, names: Sequence[str], values: Any) -> str:
    import torch

    size = _large_size(s)
    doubt: Doubt | None = None
    for name in names:
        dtype = getattr(torch, name)
        with quiet():
            m = s.build()
            x = mapped(values(s, size), lambda v, d=dtype: v.to(d).requires_grad_())
            device = torch.device(s.device).type
            try:
                with torch.autocast(device, dtype=dtype):
                    y = m(x)
                y.float().mean().backward()
            except Exception as exc:  # a module can raise anything
                raise _unsupported(exc) or s.fault(exc, f"under {name} autocast", _TYPE) from exc
            grads = [v.grad for v in each(x)] + [p.grad for p in m.parameters()]
            if not y.isfinite().all():
                raise _overflow(s, m, x, dtype, f"{name} autocast, activations of 1e3")
            if any(g is not None and not g.isfinite().all() for g in grads):
                raise Fault(f"{name} autocast, activations of 1e3: gradients are not finite", _SUMS, _backward_line(s, m, x, dtype))
            if y.dtype != dtype:
                was = str(y.dtype).replace("torch.", "")
                doubt = doubt or Doubt(
                    f"{name} comes in and {was} goes out of it under autocast: what follows runs at {was}'s pace or casts back",
                    _TYPE,
                    _cast_line(s, m, x, dtype, autocast=True),
                )
    if doubt is not None:
        raise doubt
    return f"{_short(names)}, 1e3: finite, gradients as well"


def largest(s: Subject) -> str:
    """Activations of 6e4, close to the end of fp16: where is the first number that does not fit."""
    import torch

    from .watch import LEARNED, SHORTCUT, Overflow

    size = _large_size(s)
    with quiet(), torch.no_grad():
        names = [n for n in ("bfloat16", "float16") if _has_autocast(s.device, n)]
        for dtype in (getattr(torch, n) for n in names):
            m = s.build().eval()
            x = mapped(s.maps(size, 1), lambda v, d=dtype: (6e4 * (0.9 + 0.1 * v.abs().clamp(max=1))).to(d))
            try:
                with torch.autocast(torch.device(s.device).type, dtype=dtype), Overflow(s.sources) as ops:
                    y = m(x)
            except Exception as exc:  # a module can raise anything
                raise _unsupported(exc) or s.fault(exc, "activations of 6e4", _TYPE) from exc
            if y.isfinite().all():
                continue
            if dtype == torch.bfloat16:
                raise _overflow(s, m, x, dtype, "bfloat16 autocast, activations of 6e4")
            first = ops.first
            if first is not None and first.op in (*LEARNED, SHORTCUT):
                return f"fp16 at 6e4: '{first.op}' overflows, as a convolution or a shortcut of the host would"
            what = f"'{first.op}' overflows first" if first is not None else "not finite"
            raise Doubt(f"fp16 at 6e4: {what}", _SUMS, (first.line if first else None) or s.sources.method(s.cls, "forward"))
    return f"{_short(sorted(names, reverse=True))}, 6e4: finite"


def half_weights(s: Subject) -> str:
    """Weights of half precision without autocast, as in `val half=True` and half exports: type kept, nothing overflows."""
    import torch

    with quiet(), torch.no_grad():
        m = s.build().eval()
        for dtype in (torch.float16, torch.bfloat16):
            name = str(dtype).replace("torch.", "")
            twin = copy.deepcopy(m).to(dtype)
            x = mapped(_large(s, _large_size(s)), lambda v, d=dtype: v.to(d))
            try:
                y = twin(x)
            except Exception as exc:  # a module can raise anything
                raise _unsupported(exc) or s.fault(exc, f"with {name} weights", _TYPE) from exc
            if y.dtype != dtype:
                was = str(y.dtype).replace("torch.", "")
                raise Fault(
                    f"with {name} weights, {name} comes in and {was} goes out: the host's next convolution refuses it",
                    _TYPE,
                    _cast_line(s, twin, x, dtype, autocast=False),
                )
            if not y.isfinite().all():
                raise _overflow(s, twin, x, dtype, f"{name} weights, activations of 1e3", cast=False)
    return "type kept, finite at 1e3"


def double(s: Subject) -> str:
    """fp64, in which gradients are checked: the type is kept."""
    import torch

    with quiet(), torch.no_grad():
        m = s.build().double().eval()
        x = s.maps(dtype=torch.float64)
        try:
            y = m(x)
        except Exception as exc:  # a module can raise anything
            raise s.fault(exc, "in fp64", _TYPE) from exc
        if y.dtype != torch.float64:
            was = str(y.dtype).replace("torch.", "")
            raise Fault(f"fp64 comes in and {was} goes out", _TYPE, _cast_line(s, m, x, torch.float64, autocast=False))
    return "fp64 kept"


def other_device(s: Subject) -> str:
    """On a device that is not the CPU: shapes without values, so that no GPU is needed."""
    import torch

    with quiet(), torch.no_grad():
        _meta(s, torch)
        try:
            from torch._subclasses.fake_tensor import FakeTensorMode
        except ImportError:  # torch before 2.0
            return "shapes without values"
        with FakeTensorMode(allow_non_fake_inputs=True):
            try:
                with torch.device("cuda"):
                    call = s.bound(s.small)
                    from ...registry.forms import adapt

                    m = adapt(s.cls(*call.args, **call.kwargs), s.form, s.inputs if s.inputs > 1 else 0).eval()
                    x = [torch.empty(2, s.small, *s.size) for _ in range(s.inputs)]
            except Exception as exc:  # a constructor that reads values: not decided here
                raise Skip(f"cannot be built without values: {type(exc).__name__}") from exc
            try:
                y = m(x if s.inputs > 1 else x[0])
            except Exception as exc:  # a module can raise anything
                if "device" not in str(exc).lower() and "cuda" not in str(exc).lower():
                    raise Skip(f"cannot be run without values: {type(exc).__name__}") from exc
                raise s.fault(exc, "on a GPU", _DEVICE) from exc
            if y.device.type != "cuda":
                raise Fault(f"a map on a GPU comes in and one on {y.device.type} goes out", _DEVICE, s.sources.returns(s.cls))
    return "nothing is left on the CPU"


_DEVICE = "take the device from the input (device=x.device), or make the tensor in __init__ with self.register_buffer"


def _meta(s: Subject, torch: Any) -> None:
    """The meta device, where hosts and tools learn shapes and count operations."""
    try:
        with torch.device("meta"):
            call = s.bound(s.small)
            from ...registry.forms import adapt

            m = adapt(s.cls(*call.args, **call.kwargs), s.form, s.inputs if s.inputs > 1 else 0)
            x = [torch.empty(2, s.small, *s.size) for _ in range(s.inputs)]
        y = m(x if s.inputs > 1 else x[0])
    except Exception as exc:  # a module can raise anything
        if any(word in str(exc) for word in ("item()", "_local_scalar_dense", "is_nonzero", "boolean value")):
            said = "forward reads a value out of a tensor: on a GPU everything waits for it, and no tool learns its shapes without data"
            raise Doubt(said, "compute with tensors: no .item(), float(), int(), .tolist() or if on a value", s.sources.of_error(exc)) from exc
        if isinstance(exc, NotImplementedError):
            raise Skip(f"cannot be run without values: {str(exc).splitlines()[0][:160]}") from exc
        if "meta" not in str(exc) and "device" not in str(exc).lower():
            raise s.fault(exc, "on the meta device, where tools learn shapes", _DEVICE) from exc
        raise s.fault(exc, "on another device than the CPU", _DEVICE) from exc
    if y.shape[1] != s.out_channels(s.small):
        raise Fault(f"on the meta device it gives {tuple(y.shape)}", "", s.sources.returns(s.cls))


def _large(s: Subject, size: tuple[int, int]) -> Any:
    """Activations around 1e3, positive as behind SiLU: their sums do not cancel."""
    return mapped(s.maps(size, 2), lambda v: v.abs() * 1e3)


def _large_size(s: Subject) -> tuple[int, int]:
    """24 x 24; the working size where the module runs on few."""
    import torch

    size = (SIDE, SIDE)
    try:
        with quiet(), torch.no_grad():
            s.build().eval()(s.maps(size, 1))
    except MemoryError:
        raise
    except Exception:  # said by the check of sizes
        return s.size
    return size


def _overflow(s: Subject, m: Any, x: Any, dtype: Any, when: str, *, cast: bool = True) -> Fault:
    import torch

    from .watch import LEARNED, Overflow

    ops = Overflow(s.sources)
    with torch.no_grad(), torch.autocast(torch.device(s.device).type, dtype=dtype, enabled=cast), ops:
        m(mapped(x, lambda v: v.detach()))
    first = ops.first
    if first is not None and first.op in LEARNED and not cast:
        said = f"{when}: '{first.op}' overflows, as a host's own layer may"
        return Doubt(said, "divide query or key by a root of its size before they are multiplied", first.line)
    what = f"'{first.op}' gives the first number that is not finite" if first is not None else "the output is not finite"
    return Fault(f"{when}: {what}", _SUMS, (first.line if first else None) or s.sources.method(s.cls, "forward"))


def _backward_line(s: Subject, m: Any, x: Any, dtype: Any) -> Any:
    """The line of the forward pass whose derivative is not finite, as autograd's anomaly mode tells it."""
    import warnings

    import torch

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with torch.autograd.set_detect_anomaly(True), torch.autocast(torch.device(s.device).type, dtype=dtype):
                y = m(mapped(x, lambda v: v.detach().requires_grad_()))
                y.float().mean().backward()
        except Exception:  # anomaly mode raises where it finds one
            pass
    found = [s.sources.of_text(str(w.message)) for w in told]
    return next((line for line in found if line is not None), None) or s.sources.method(s.cls, "forward")


def _cast_line(s: Subject, m: Any, x: Any, dtype: Any, *, autocast: bool) -> Any:
    """The last operation that made another type than that of the input."""
    import torch

    from .watch import Watch

    ops = Watch(s.sources)
    with torch.no_grad(), torch.autocast(torch.device(s.device).type, dtype=dtype, enabled=autocast), ops:
        m(mapped(x, lambda v: v.detach()))
    others = [o for o in ops.seen if o.line is not None and o.made and any(t != dtype for t in o.made)]
    first = [o for o in others if dtype in o.read or not o.read] or others
    return first[0].line if first else s.sources.returns(s.cls)


def _has_autocast(device: str, name: str) -> bool:
    """Whether this torch casts to the type there: the CPU has no fp16 before torch 2.3, which warns and goes on without."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(torch.autocast(torch.device(device).type, dtype=getattr(torch, name))._enabled)


def _short(names: Sequence[str]) -> str:
    return " and ".join({"float16": "fp16", "bfloat16": "bf16"}[n] for n in names)


def _unsupported(exc: Exception) -> Skip | None:
    """An operation that this device does not have in half precision is none of the module's."""
    return Skip(str(exc).splitlines()[0][:200]) if "not implemented for '" in str(exc) else None
