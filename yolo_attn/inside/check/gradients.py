"""Gradients: against finite differences in fp64, and whether each parameter gets one."""

from __future__ import annotations

from typing import Any

from .subject import Subject, each, mapped, quiet
from .verdict import Doubt, Fault

__all__ = ["constant_map", "finite_differences", "parameters_learn"]


def finite_differences(s: Subject) -> str:
    """The derivative by input and parameters, in fp64, against finite differences."""
    import torch
    from torch.autograd.gradcheck import GradcheckError

    m = s.build(stir=True).double().eval()  # batch norms as fixed maps: their own derivative is torch's affair
    names = [n for n, _ in m.named_parameters()]
    size = (3, 4)
    with quiet():
        try:
            m(s.maps(size, dtype=torch.float64))
        except Exception:  # said by the check of sizes
            size = s.size

        def f(*values: torch.Tensor) -> torch.Tensor:
            maps, weights = values[: s.inputs], values[s.inputs :]
            given = list(maps) if s.inputs > 1 else maps[0]
            y: torch.Tensor = torch.func.functional_call(m, dict(zip(names, weights)), (given,))
            return y

        try:
            for seed in range(2):  # at one point, a dead ReLU may hide the rest
                x = [(2 * v).requires_grad_() for v in each(s.maps(size, seed=seed, dtype=torch.float64))]
                torch.autograd.gradcheck(f, (*x, *m.parameters()), fast_mode=True)
        except GradcheckError as exc:
            first = " ".join(str(exc).split())[:200]
            raise Fault(
                f"the gradient is not that of the output: {first}",
                "let the gradient pass everywhere: no .detach(), .data, .item() or rounding; a custom autograd.Function "
                "must return the derivative of its forward",
                s.sources.call(s.cls, ("detach", "round", "sign", "floor", "item", "argmax", "no_grad", "apply"))
                or s.sources.method(s.cls, "forward"),
            ) from exc
        except Exception as exc:  # a module can raise anything
            raise s.fault(exc, "in fp64") from exc
    return f"equal, by input and {len(names)} parameters"


def constant_map(s: Subject) -> str:
    """A map of zeros and a constant one, as of a black image and of padding: gradients stay finite."""
    import torch

    for value in (0.0, 1.0):
        with quiet():
            m = s.build().train()
            x = mapped(s.maps(), lambda v, c=value: torch.full_like(v, c).requires_grad_())
            try:
                y = m(x)
                y.square().sum().backward()
            except Exception as exc:  # a module can raise anything
                raise s.fault(exc, f"on a map of {value:g}") from exc
            grads = [v.grad for v in each(x)] + [p.grad for p in m.parameters()]
            if not y.isfinite().all() or any(g is not None and not g.isfinite().all() for g in grads):
                raise Fault(
                    f"on a map of {value:g} the output or a gradient is not finite",
                    "add eps inside the root and to the divisor: (v + eps).sqrt(), z / (n + eps)",
                    s.sources.call(s.cls, ("sqrt", "std", "norm", "rsqrt", "pow", "log")) or s.sources.method(s.cls, "forward"),
                )
    return "zeros and ones: finite"


def parameters_learn(s: Subject) -> str:
    """Every parameter gets a gradient in training, as several GPUs want it, and is used in eval mode as well."""
    with quiet():
        m = s.build(stir=True).train()
        without = _unused(s, m)
        idle = [n for n in _unused(s, s.build(stir=True).eval()) if n not in without]
    if without:
        name = without[0].rpartition(".")[2] if "." not in without[0] else without[0].partition(".")[0]
        raise Doubt(
            f"{', '.join(without[:4])} never get{'s' if len(without) == 1 else ''} a gradient: training on several GPUs stops",
            "use the parameter in forward, or remove it",
            s.line_of(m, name),
        )
    if idle:
        name = idle[0].rpartition(".")[2] if "." not in idle[0] else idle[0].partition(".")[0]
        raise Fault(
            f"{', '.join(idle[:4])} {'is' if len(idle) == 1 else 'are'} trained, and not used in eval mode: the detector is "
            "measured and exported without",
            "compute the same in training and in eval mode; only batch norms and dropout differ",
            s.sources.first(s.cls, _reads_training, ("forward",)) or s.line_of(m, name),
        )
    return f"all {sum(1 for _ in m.parameters())}, in training and in eval mode"


def _unused(s: Subject, m: Any) -> list[str]:
    """Names of the parameters that the output does not depend on."""
    y = m(mapped(s.maps(batch=4), lambda v: v.requires_grad_()))
    y.square().sum().backward()
    return [n for n, p in m.named_parameters() if p.requires_grad and p.grad is None]


def _reads_training(node: Any) -> bool:
    import ast

    return isinstance(node, ast.Attribute) and node.attr == "training"
