"""Every module and block under `torch.compile` as one graph that autograd's tracer accepts: same values, same gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from conftest import slow_but
from torch import Tensor

from yolo_attn.export.one_module import make_module
from yolo_attn.registry import registry

NAMES = [n for n in registry.list_modules() if registry.get_entry(n).lists]
# One of each way of computing; the others with the slow tests.
QUICK = ("SEAttention", "CBAM", "ECA", "C3SE", "WeightedFusion", "NonLocal", "SEAM", "iRMB", "RFAConv", "DeformableLKA")


def run(module: Any, xs: list[Tensor]) -> list[Tensor]:
    """Output, and the gradients of inputs and parameters."""
    xs = [x.clone().requires_grad_() for x in xs]
    y = module(xs if len(xs) > 1 else xs[0])
    weight = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    wrt = [*xs, *module.parameters()]
    grads = torch.autograd.grad((y * weight).sum(), wrt, allow_unused=True)
    return [y.detach(), *(g for g in grads if g is not None)]


@pytest.mark.parametrize("name", slow_but(NAMES, *QUICK))
def test_one_graph_with_equal_results(name: str) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    module, inputs = make_module(name, 16)
    xs = [torch.randn(2, 16, 9, 7) for _ in range(inputs)]
    expected = run(copy.deepcopy(module), xs)
    got = run(torch.compile(module, fullgraph=True, backend="aot_eager"), xs)
    assert len(got) == len(expected)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
