"""Every module on a GPU, where there is one: deterministic, AMP-safe, equal to the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from yolo_attn.export.one_module import make_module
from yolo_attn.registry import registry

if not torch.cuda.is_available():
    pytest.skip("no GPU that PyTorch can use", allow_module_level=True)

NAMES = [n for n in registry.list_modules() if registry.get_entry(n).lists]


def make(name: str, channels: int) -> tuple[torch.nn.Module, Any]:
    """A module in training mode, and how it is given its input."""
    torch.manual_seed(0)
    module, inputs = make_module(name, channels)
    return module.train(), (lambda x: [x, x.flip(-1)]) if inputs > 1 else (lambda x: x)


@pytest.fixture(autouse=True)
def exact() -> Any:
    """Deterministic algorithms as classic YOLOv5 asks for them, an error otherwise; no TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_cpu(name: str) -> None:
    module, shape = make(name, 32)
    x = torch.randn(2, 32, 12, 20)
    here, there = module, copy.deepcopy(module).cuda()
    a = x.clone().requires_grad_()
    b = x.cuda().requires_grad_()
    weight = torch.randn_like(here(shape(a)))
    (here(shape(a)) * weight).sum().backward()
    (there(shape(b)) * weight.cuda()).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_does_not_overflow(name: str, dtype: torch.dtype) -> None:
    """Activations of 1e3 on a 160 x 160 map, in channels-last memory, deterministically."""
    module, shape = make(name, 32)
    module = module.cuda().to(memory_format=torch.channels_last)
    side = 80 if name in ("MHSA", "DAttention", "BoT3") else 160  # several heads, each of all pairs of positions
    x = (torch.rand(1, 32, side, side, device="cuda") * 1e3).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cuda", dtype):
        y = module(shape(x.to(dtype)))
    y.float().mean().backward()
    assert torch.isfinite(y).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
